#!/usr/bin/env python3
"""Writes spaCy's lemmas of stored answers, as LAVIS makes them for OK-VQA, for `ressa score --lemmas TABLE`.

    python3 scripts/lemmatize_answers.py results/store/../predictions.jsonl > lemmas.tsv

Needs spaCy and its model `en_core_web_sm` (LAVIS pins 3.7), which is no package of PyPI. Each distinct answer is tagged; nouns and verbs
become their lemmas, other words stay, all joined by blanks.
"""

import json
import sys


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        import spacy

        model = spacy.load("en_core_web_sm")
    except (ImportError, OSError) as error:
        sys.exit(f"spaCy with the model en_core_web_sm is needed: {error}")
    answers = set()
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as lines:
            answers |= {json.loads(line)["prediction"] for line in lines}
    for answer in sorted(answers):
        if "\t" in answer or "\n" in answer:
            continue
        words = [token.lemma_ if token.pos_ in ("NOUN", "VERB") else token.text for token in model(answer)]
        print(f"{answer}\t{' '.join(words)}")


if __name__ == "__main__":
    main()
