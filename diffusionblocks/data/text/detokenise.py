"""One Billion Word without the blanks around its punctuation, as BD3-LM reads it."""

import re

# A blank before what ends a phrase or a sentence (but not behind U.S.), before 's, behind a currency.
BLANKS = re.compile(r" (?=[,:;?!](?: |$))|(?<=[^ .]) (?=\.(?: |$))| (?='\w)|(?<=[$£]) ")
PAIRS = ('""', "''", "()", "[]")


def detokenised(line: str) -> str:
    """A line of LM1B as it would have been typed: `" Don 't ( yet ) , " he said .` is `"Don't (yet)," he said.`"""
    line = BLANKS.sub("", line.replace(" : / / ", "://").replace(" / ", "/"))
    for first, last in PAIRS:  # of quotes, each with the next
        line = re.sub(rf"\{first} ([^\{first}\{last}]+) \{last}", rf"{first}\1{last}", line)
    return line
