"""GPT-1 in JAX: "Improving Language Understanding by Generative Pre-Training" (2018), whole.

Importing the package imports nothing else, so that `gpt1 --help` and the report stay quick.
"""

__version__ = "0.1.0"
