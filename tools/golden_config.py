"""How the files of family_models/ make configurations of transformers."""


def maker(shape):
    """Returns new(kind, long=False, **more): a function without arguments that makes a configuration of this class, with
    `shape` and `more`. `long`: the golden has a text of 4,000 tokens, too."""
    def new(kind, long=False, **more):
        def config():
            made = kind(**(shape | more))
            if long:
                made.golden_long = True
            return made
        return config
    return new
