"""Training of informative Sinkhorn GANs.

The method is that of Bréchet, Wu, Möllenhoff and Cremers, "Informative GANs via Structured
Regularization of Optimal Transport" (2019), called "the paper" throughout; equation,
algorithm and table numbers are the paper's.
"""
