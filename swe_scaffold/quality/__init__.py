"""The only room that judges an Example: keep it, or skip it for a reason.

stages      the table of stages in order, and the runner that counts
responses   is there an answer, and is a patch long enough
duplicates  was this row seen before
overlap     what rows or files share: repeats, leaks between dev and test
text        characters nobody sees, and control tokens spelt out
length      how long texts are, and what cutting them at a length would cost
"""
