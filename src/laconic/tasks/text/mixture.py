"""Training data of ``testbed/lm``: token ids, weights and acceptable targets for induction, prose and many-turn chats.

A training chat mixes several kinds of needle in one context and asks many questions, which makes supervision dense; some of
the chats are the tasks exactly as they are evaluated.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from laconic.prompts.text import JOINT
from laconic.tasks.task import EVALUATION_SEED, Turn
from laconic.tasks.text import corpus
from laconic.tasks.text.haystack import haystack, plant
from laconic.tasks.text.needles import (
    CHAIN_LENGTH,
    VALUES_PER_KEY,
    Block,
    chains,
    merge_lines,
    multivalue,
    numbers,
    several,
    shuffled,
    singles,
)
from laconic.tasks.text.retrieval import TRAINED, block, needles_at
from laconic.tasks.text.variety import decorate, made_up
from laconic.tasks.text.words import NOUNS

# What a supervised position measures; the log shows the accuracy of each.
KINDS = ("other", "single", "multiquery", "multivalue", "vartrack")
FIRST_WEIGHT = 3.0
SYSTEMS = (
    "You are a helpful assistant.",
    "Answer from the text only.",
    "You are a careful reader. Answer briefly.",
    "Read the document and answer the question.",
)
JOINTS = ("\n\n", "\n", "\n\n---\n\n", " ")


@dataclass
class Example:
    """One training sequence: `ids` [T]; `targets` maps a position to (acceptable ids there, weight, kind)."""

    ids: list[int] = field(default_factory=list)
    targets: dict[int, tuple[tuple[int, ...], float, int]] = field(default_factory=dict)


class Mixture:
    """Draws training examples with a tokenizer; refuses seeds that are reserved for evaluation.

    Args:
        dense: share of chats that are mostly needles.
        drill: share of chats of lists or chains alone.
        list_sizes: values per key, one size per chat.
    """

    def __init__(
        self,
        tokenizer: Any,
        dense: float = 0.3,
        drill: float = 0.1,
        list_sizes: Sequence[int] = (VALUES_PER_KEY,),
    ) -> None:
        self.tokenizer, self.dense, self.drill, self.list_sizes = tokenizer, dense, drill, list_sizes
        self.encode_text = tokenizer.backend_tokenizer.encode
        self.cache: dict[str, list[int]] = {}
        special = tokenizer.convert_tokens_to_ids
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.system, self.user, self.assistant = (special(f"<|{role}|>") for role in ("system", "user", "assistant"))
        self.blank = self.ids(" ")[0]
        self.prose = [i for line in corpus.lines("prose") for i in self.ids("\n" + line)]
        self.odd_words = corpus.common_words()

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text``; those of corpus lines are cached."""
        found = self.cache.get(text)
        if found is None:
            found = self.encode_text(text, add_special_tokens=False).ids
            if text[:1] == "\n" or len(text) < 3:
                self.cache[text] = found
        return found

    def task_chat(self, seed: int, tokens: int) -> Example:
        """A chat of at most ``tokens`` tokens; raises ``ValueError`` for a seed reserved for evaluation."""
        if not 0 <= seed < EVALUATION_SEED:
            raise ValueError(f"seed={seed} is reserved for evaluation; train with 0 to {EVALUATION_SEED - 1}")
        rng = random.Random(f"train-{seed}")
        kind = rng.random()
        if kind < self.drill:
            return self._assemble(rng, self._drill(rng, tokens), tokens, plain=True, dense=True)
        if kind < self.drill + 0.2:
            facts = block(rng.choice(["multikey", "multiquery", *TRAINED]), rng, tokens)
            return self._assemble(rng, facts, tokens, plain=True)
        dense = rng.random() < self.dense
        return self._assemble(rng, self._mixed(rng, tokens, dense), tokens, rng.random() < 0.5, dense)

    def _drill(self, rng: random.Random, tokens: int) -> Block:
        """Lists or chains alone, and a question about each: the densest supervision of an item.

        In short chats lists are asked for repeatedly: the hard part is not to give a value twice.
        """
        n = rng.randint(1, max(1, min(8, tokens // 64)))
        if rng.random() < 0.5:
            size = rng.choice(self.list_sizes)
            facts = multivalue(rng, self._keys(rng, n), numbers(rng, size * n))
            again = rng.choices(facts.turns, k=tokens // 24) if tokens <= 256 else []
            return Block(facts.groups, [*rng.sample(facts.turns, n), *again])
        facts = chains(rng, self._keys(rng, CHAIN_LENGTH * n), numbers(rng, n))
        return Block(facts.groups, rng.sample(facts.turns, n))

    def _keys(self, rng: random.Random, n: int) -> list[str]:
        """``n`` different keys: nouns, and in half of the contexts some corpus words and made-up words too."""
        keys = rng.sample(NOUNS, n)
        if rng.random() < 0.5:
            for i in range(n):
                if rng.random() < 0.5:
                    keys[i] = rng.choice(self.odd_words) if rng.random() < 0.5 else made_up(rng)
        return keys if len(set(keys)) == n else rng.sample(NOUNS, n)

    def _mixed(self, rng: random.Random, tokens: int, dense: bool) -> Block:
        """Single values, lists of values and chains in one context, with as many questions as fit well.

        ``dense`` fills about half of the chat with needles and the rest with questions.
        """
        cap = min(60, tokens // 22) if dense else needles_at(tokens)
        budget = rng.randint(max(1, cap // 2), cap + cap // 4)
        kinds = rng.sample(["single", "multivalue", "vartrack"], rng.choice([1, 2, 2, 3]))
        size = rng.choice(self.list_sizes)
        lists = rng.randint(1, max(1, budget // 6)) if "multivalue" in kinds and budget >= 3 else 0
        if kinds == ["multivalue"]:
            lists = max(lists, budget // size)
        linked = rng.randint(1, max(1, budget // 6)) if "vartrack" in kinds and budget >= 3 else 0
        alone = max(0, budget - size * lists - CHAIN_LENGTH * linked)
        alone = alone if "single" in kinds or not lists + linked else 0
        keys = self._keys(rng, alone + lists + CHAIN_LENGTH * linked)
        values = numbers(rng, alone + size * lists + linked)
        if rng.random() < 0.1:
            values = [value[: rng.randint(3, 6)] for value in values]
        parts = [singles(rng, keys[:alone], values[:alone])]
        if lists:
            own = values[alone : alone + size * lists]
            parts.append(multivalue(rng, keys[alone : alone + lists], own))
        if linked:
            parts.append(chains(rng, keys[alone + lists :], values[len(values) - linked :]))
        pool = [turn for part in parts[1:] for turn in part.turns]
        wanted = tokens // 40 if dense else max(2, min(24, tokens // 64))
        turns: list[Turn] = []
        # An earlier answer could be copied: hardly ever ask the same question twice.
        for _ in range(3 * wanted):
            if alone and (not pool or rng.random() < 0.4):
                many = alone >= 2 and rng.random() < 0.4
                asked = rng.sample(parts[0].turns, min(alone, rng.choice([2, 3, 4, 4])) if many else 1)
                turn = several(asked) if many else asked[0]
            else:
                turn = rng.choice(pool)
            if turn not in turns or rng.random() < 0.03:
                turns.append(turn)
        turns = turns[:wanted]
        return Block([group for part in parts for group in part.groups], turns)

    def _assemble(self, rng: random.Random, facts: Block, tokens: int, plain: bool, dense: bool = False) -> Example:
        """Lay out haystack, needles and turns; `plain`: in the evaluation's layout, else in a varied one."""
        needles = merge_lines(rng, facts.groups)
        system = rng.choice(SYSTEMS) if rng.random() < 0.3 else ""
        joint = JOINT if plain or rng.random() < 0.5 else rng.choice(JOINTS)
        room = tokens - 3 - len(self.ids(joint)) - (2 + len(self.ids(system)) if system else 0)
        room -= sum(len(self.ids("\n" + needle)) + (0 if plain else 2) for needle in needles)
        turns: list[Turn] = []
        for turn in facts.turns:
            cost = 7 + len(self.ids(turn.question)) + len(self.ids(turn.gold))
            if turns and cost > room * (1.0 if dense else 0.6):
                break
            turns.append(turn)
            room -= cost
        if not plain and rng.random() < 0.1:
            room = rng.randint(0, max(0, room))
        kind = "prose" if plain or rng.random() < 0.6 else "code"
        hay = haystack(rng, corpus.lines(kind), room, lambda text: len(self.ids(text)))
        if not plain:
            needles, hay = decorate(rng, needles, hay)
            while hay and sum(len(self.ids("\n" + line)) for line in hay) > room:
                hay.pop()
        example = Example([self.bos])
        if system:
            example.ids += [self.system, *self.ids(system), self.eos]
        example.ids.append(self.user)
        for i, line in enumerate(plant(rng, hay, needles)):
            example.ids += self.ids("\n" + line) if i else self.ids(line)
        for i, turn in enumerate(turns):
            question = joint + turn.question if i == 0 else turn.question
            if i and rng.random() < 0.2:
                question = "Question: " + turn.question
            example.ids += [*([self.user] if i else []), *self.ids(question), self.eos, self.assistant]
            self._answer(rng, example, shuffled(rng, turn))
        if len(example.ids) > tokens:
            # Only the shortest lengths can overflow, where four long values leave no room: ask for less.
            return self._assemble(rng, singles(rng, rng.sample(NOUNS, 2), numbers(rng, 2)), tokens, plain=True)
        return example

    def _answer(self, rng: random.Random, example: Example, turn: Turn) -> None:
        """Append the gold answer; the first token of an item weighs more, and in a list any item not yet given is right."""
        kind = "vartrack" if turn.prefix.startswith("The names") else "single" if len(turn.answers) == 1 else "multiquery"
        kind = kind if turn.ordered else "multivalue"

        def add(ids: list[int], label: str, first: int = -1, choices: tuple[int, ...] = ()) -> None:
            for i, token in enumerate(ids):
                here = (choices, FIRST_WEIGHT, KINDS.index(label)) if i == first else ((token,), 1.0, 0)
                example.targets[len(example.ids)] = here
                example.ids.append(token)

        encoded = [self.ids(" " + answer) for answer in turn.answers]
        at = len(turn.prefix)
        add(self.ids(turn.prefix), kind)
        for i, (answer, ids) in enumerate(zip(turn.answers, encoded, strict=True)):
            start = turn.gold.index(" " + answer, at)
            add(self.ids(turn.gold[at:start]), kind)
            # A number is a space and then its groups of digits; a name includes its space.
            first = int(ids[0] == self.blank)
            left = encoded[i : i + 1] if turn.ordered else encoded[i:]
            add(ids, kind, first, tuple(dict.fromkeys(item[first] for item in left)))
            at = start + 1 + len(answer)
        add([*self.ids(turn.gold[at:]), self.eos], kind)

    def induction(self, rng: random.Random, tokens: int, alphabet: int) -> Example:
        """Short random segments repeated at random: every token of a repeat but its first follows from the text."""
        size, low = rng.randint(3, 9), len(self.tokenizer.all_special_ids)
        pool = [[rng.randrange(low, low + alphabet) for _ in range(size)] for _ in range(6)]
        example, seen = Example(), set()
        for _ in range(tokens // size):
            pick = rng.randrange(6)
            for i, token in enumerate(pool[pick]):
                if pick in seen and i:
                    example.targets[len(example.ids)] = ((token,), 1.0, 0)
                example.ids.append(token)
            seen.add(pick)
        return example

    def relation(self, rng: random.Random, tokens: int) -> Example:
        """Needle sentences alone, repeated at random; only the values of repeats are supervised.

        Plain induction is solved by the token just before. Here that token is the same in every sentence, and only the key,
        two tokens before, determines the value. Values of one token are learned first, values of three much later; so the
        mixture has both, and values of two in between.
        """
        n = rng.randint(2, max(3, tokens // 32))
        digits = rng.choice([3, 6, 7, 7])
        values = [self.ids(value[: digits if rng.random() < 0.8 else 3]) for value in numbers(rng, n)]
        heads = [self.ids("\nThe code for") + self.ids(f" {key}") + self.ids(" is ") for key in self._keys(rng, n)]
        end = self.ids(".")
        example, seen = Example(), set()
        while True:
            pick = rng.randrange(n)
            if len(example.ids) + len(heads[pick] + values[pick] + end) > tokens:
                return example
            example.ids += heads[pick]
            for i, token in enumerate(values[pick]):
                if pick in seen:
                    example.targets[len(example.ids)] = ((token,), 1.0 if i else FIRST_WEIGHT, int(not i))
                example.ids.append(token)
            example.ids += end
            seen.add(pick)

    def plain_prose(self, rng: random.Random, tokens: int, share: float = 0.4) -> Example:
        """A window of training prose with a random ``share`` of its tokens supervised."""
        at = rng.randrange(len(self.prose) - tokens)
        example = Example(self.prose[at : at + tokens])
        example.targets = {i: ((example.ids[i],), 1.0, 0) for i in range(1, tokens) if rng.random() < share}
        return example
