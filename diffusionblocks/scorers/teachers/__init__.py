"""Teachers by name: what judges a text, by features or by likelihood. Each function returns a Teacher.

Numbers of two teachers cannot be compared, so the title reaches every number. The paper's are GPT-2 large for MAUVE and
Llama-2-7B and GPT-2 XL for perplexity (appendix E.4).
"""

from diffusionblocks.scorers.teachers.base import Teacher

__all__ = ["Teacher"]
