"""The example repository that `turbo run` works on when no task is named."""
