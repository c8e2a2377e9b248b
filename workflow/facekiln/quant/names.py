"""Names of what can be chosen, apart from what computes it, so that the command line knows them at once."""

# How a range's threshold is found (see `facekiln.quant.thresholds`).
METHODS = ("minmax", "percentile", "kl", "mse")
# Of int8 activations (see `facekiln.quant.qdq.scale_of`).
SCHEMES = ("symmetric", "asymmetric")
