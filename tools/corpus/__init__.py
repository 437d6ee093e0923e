"""Where the training text comes from and how it is cleaned. Used by fetch_corpus.py."""
