"""What the page makes of Markdown: texts and the HTML of the nodes that they become, in one line."""


def code(text, language="code"):
    return (f'<figure class="code"><figcaption><span>{language}</span><button type="button" class="small" '
            f'aria-label="Copy the code">Copy</button></figcaption><pre tabindex="0"><code>{text}</code></pre></figure>')


def link(href, text):
    return f'<a href="{href}" title="{href}" target="_blank" rel="noopener noreferrer">{text}</a>'


def table(head, rows):
    return ('<div class="wide" tabindex="0" role="region" aria-label="Table"><table><thead><tr>' + head + "</tr></thead><tbody>" +
            rows + "</tbody></table></div>")


CASES = [
    # paragraphs
    ("", ""),
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("  one\r\ntwo\rthree  \n", "<p>one\ntwo\nthree</p>"),
    # emphasis
    ("a *b* **c** ***d*** ~~e~~", "<p>a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> <del>e</del></p>"),
    ("_a_ __b__ snake_case_name 2_3", "<p><em>a</em> <strong>b</strong> snake_case_name 2_3</p>"),
    ("2 * 3 * 4, **not closed, a * b", "<p>2 * 3 * 4, **not closed, a * b</p>"),
    ("**a*b**", "<p><strong>a*b</strong></p>"),
    ("*a **b* c**", "<p><em>a <em><em>b</em> c</em></em></p>"),
    ("**a *b***", "<p><strong>a <em>b</em></strong></p>"),
    (r"\*a\* \\ \_ \`x\` \[y\] \(z\)", r"<p>*a* \ _ `x` \[y\] \(z\)</p>"),
    ("****a****", "<p>****a****</p>"),
    # code
    ("`a*b*` and ``c`d`` and ` e `", "<p><code>a*b*</code> and <code>c`d</code> and <code>e</code></p>"),
    ("`not closed *x*", "<p>`not closed <em>x</em></p>"),
    ("```python\nif a < b:\n    print('&')\n```\nafter", code("if a &lt; b:\n    print('&amp;')", "python") + "<p>after</p>"),
    ("```\nnot closed\n\n# yet", code("not closed\n\n# yet")),
    ("````\n```\n````", code("```")),
    ("~~~ c++ x\n```\n~~~", code("```", "c++")),
    ("text\n```\na\n```", "<p>text</p>" + code("a")),
    ("    a\n\n      b\nc", code("a\n\n  b") + "<p>c</p>"),
    # headings, rules and quotes
    ("# One\n###### Six ##\n#no", "<h3>One</h3><h6>Six</h6><p>#no</p>"),
    ("a\n***\n- - -\n__", "<p>a</p><hr><hr><p>__</p>"),
    ("> a\n> > b\n>\n> c\n\nd", "<blockquote><p>a</p><blockquote><p>b</p></blockquote><p>c</p></blockquote><p>d</p>"),
    # lists
    ("- a\n- b\n  - c\n  - d\n- e",
     "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li><li><p>d</p></li></ul></li><li><p>e</p></li></ul>"),
    ("3. a\n4. b\n\n5. c", '<ol start="3"><li><p>a</p></li><li><p>b</p></li><li><p>c</p></li></ol>'),
    ("1. a\n   ```sh\n   x\n     y\n   ```\n2. b",
     '<ol start="1"><li><p>a</p>' + code("x\n  y", "sh") + "</li><li><p>b</p></li></ol>"),
    ("- a\nlazy\n\nnot", "<ul><li><p>a\nlazy</p></li></ul><p>not</p>"),
    ("- a\n\n  more\n* b\n1. c",
     '<ul><li><p>a</p><p>more</p></li><li><p>b</p></li></ul><ol start="1"><li><p>c</p></li></ol>'),
    ("It was in\n1999. Then\n- a", "<p>It was in\n1999. Then</p><ul><li><p>a</p></li></ul>"),
    ("-\n- ", "<ul><li></li><li></li></ul>"),
    # tables
    ("| a | *b* |\n|:--|--:|\n| 1 | x\\|y | 3 |\n| 2\nend",
     table("<th>a</th><th><em>b</em></th>", "<tr><td>1</td><td>x|y</td></tr><tr><td>2</td></tr>") + "<p>end</p>"),
    ("a | b\nno rule", "<p>a | b\nno rule</p>"),
    # links
    ("[a *b*](https://x.org/p_(q)?r=1&s) [c](<http://y.org> \"t\")",
     "<p>" + link("https://x.org/p_(q)?r=1&amp;s", "a <em>b</em>") + " " + link("http://y.org/", "c") + "</p>"),
    ("see https://x.org/a_b_c, (http://y.org/z). <https://w.org>",
     "<p>see " + link("https://x.org/a_b_c", "https://x.org/a_b_c") + ", (" + link("http://y.org/z", "http://y.org/z") + "). " +
     link("https://w.org/", "https://w.org") + "</p>"),
    ("![alt](https://x.org/i.png)", "<p>" + link("https://x.org/i.png", "alt") + "</p>"),
    ("[a [b](https://x.org) c](https://y.org)", "<p>[a " + link("https://x.org/", "b") + " c](https://y.org)</p>"),
    ("[https://x.org](https://y.org)", "<p>" + link("https://y.org/", "https://x.org") + "</p>"),
    ("[a](relative) [b] [c](", "<p>[a](relative) [b] [c](</p>"),
    # what is hostile
    ("<b onclick=x>a</b> <script>x</script> &lt; &amp;",
     "<p>&lt;b onclick=x&gt;a&lt;/b&gt; &lt;script&gt;x&lt;/script&gt; &amp;lt; &amp;amp;</p>"),
    ("[a](javascript:x) [b](data:text/html,x) [c](JaVaScRiPt:x) [d](vbscript:x) <javascript:x>",
     "<p>[a](javascript:x) [b](data:text/html,x) [c](JaVaScRiPt:x) [d](vbscript:x) &lt;javascript:x&gt;</p>"),
    ("[a](https://x.org/\"onclick=\"y)", "<p>" + link("https://x.org/%22onclick=%22y", "a") + "</p>"),
    ("```\"><img src=x onerror=y>\n</code></pre><script>z</script>\n```",
     code("&lt;/code&gt;&lt;/pre&gt;&lt;script&gt;z&lt;/script&gt;", "\"&gt;&lt;img")),
    ("| <img src=x> |\n|--|\n| <svg onload=y> |",
     table("<th>&lt;img src=x&gt;</th>", "<tr><td>&lt;svg onload=y&gt;</td></tr>")),
]

# Texts of many marks, which a careless reader takes minutes for, or nests without an end.
LONG = [
    "*a " * 30000, "*" * 100000, "**a*" * 20000, "_a_b" * 20000, "~~a" * 30000, "\\" * 100000, "`" * 100000, "`a``b" * 20000,
    "[" * 100000, "[a](" * 25000, "![" * 50000, "https://a" * 10000, "https://a" + ")" * 100000, "<https://" * 10000,
    "> " * 50000, ">" * 50000 + "a", "- " * 50000, "1. " * 30000, "- a\n" * 20000,
    "".join("  " * i + "- a\n" for i in range(300)), "a | " * 20000 + "\n" + "- | " * 20000 + "\n" + "|\n" * 20000,
    "#" * 100000, "# " + " #" * 50000, " " * 100000 + "a", "```\n" * 25000, "x\n" * 50000]

# An answer with everything in it, some of it hostile.
SHOWN = """# What I can show

A paragraph with **bold**, *emphasis*, `code`, ~~no~~ and [a link](https://example.org).
<img src=x onerror="document.title='broken'"> [another](javascript:alert(1))

```python
if a < b:
    print('<b>')
```

1. first
   - inner
   - more
2. second

> a quote

| left | right |
|------|------:|
| 1 | <script>document.title = 'broken'</script> |
"""
