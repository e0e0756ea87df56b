from textkit.counting import count_words, longest_word


def test_count_words():
    assert count_words("one two three") == 3
    assert count_words("") == 0


def test_longest_word():
    assert longest_word("a small example") == "example"
    assert longest_word("") == ""
