"""``ringfence explain``: why a call was approved or blocked, rule by rule, with the facts behind it, in English and Dutch."""
