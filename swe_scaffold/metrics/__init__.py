"""Numbers from records: estimates, intervals and paired comparisons, in numpy and without torch.

distributions.py   Student t, the Wilson interval of a share
bootstrap.py       `bootstrap_confidence_interval`: percentile bootstrap of rows or whole clusters
clustered.py       ratios of sums as `Metric`s: clustered t, naive t, cluster bootstrap
likelihood.py      `summarise`: NLL per token, perplexity, bits per byte, slices of `ExampleScore`s
comparison.py      `compare`: base against tuned on the same rows

Scoring a model is the engine's work; tables and pages made of these numbers are made above.
"""
