"""Helpers that count."""


def count_words(text):
    return len(text.split())


def longest_word(text):
    return max(text.split(), key=len, default="")
