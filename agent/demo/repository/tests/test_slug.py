from textkit.slug import slugify


def test_slugify():
    assert slugify("Hello World") == "hello-world"
    assert slugify("One  Two Three") == "one-two-three"
    assert slugify("") == ""
