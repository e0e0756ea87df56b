"""Everything that makes the embedded model: data, tokenizer, training, export and evaluation."""
