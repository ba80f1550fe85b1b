"""The only room that judges an Example: keep it, or skip it for a reason.

stage             what a stage is
stages            the stages of a build in order, and the runner that counts
responses         is there an answer, neither too short nor too long
patches           is a patch one
outcomes          how an attempt ended
trajectory_audit  what is wrong with an agent's chat as a lesson
contamination     is a row about a task that a benchmark asks (by fingerprints, shingles)
secrets           credentials in rows; credentials: what they look like
text              what a reader would not see or expect
duplicates        was this row seen before
near_duplicates   was something like it seen before (by shingles)
caps              not too many rows of one kind
overlap           what rows or files share: repeats, leaks between dev and test
length            how long texts are, and what cutting them at a length would cost
pretraining       what a model has read before
findings          what a look at a file found
"""
