"""PageIndex Home: a document service that answers questions with checked quotes."""

__version__ = "0.1.0"
