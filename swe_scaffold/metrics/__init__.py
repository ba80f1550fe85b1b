"""Numbers from records: estimates, intervals and paired comparisons, in numpy and without torch.

distributions.py   Student t, the Wilson interval of a share
bootstrap.py       `bootstrap_confidence_interval`: percentile or BCa, of rows or whole clusters
small_samples.py   clustered errors where clusters are few or unequal: CR2, Bell-McCaffrey df
clustered.py       ratios of sums as `Metric`s: clustered t, naive t, cluster bootstrap
shares.py          a yes or no per row: Wilson, by cluster too; McNemar; Holm
discrimination.py  how well a score separates two classes: AUC by cluster
likelihood.py      `summarise`: NLL per token, perplexity, bits per byte, slices of `ExampleScore`s
comparison.py      `compare`: base against tuned on the same rows
positions.py       `summarise_starts`: how responses begin, and data that fight the template

Scoring a model is the engine's work; tables and pages made of these numbers are made above.
"""
