#!/usr/bin/env python3
"""demo_text.py - writes the text that the demo model is trained on: small talk, facts, stories, lists, sums, in simple English.

What: a grammar of templates over the tables of demo_facts.py, drawn with a seed. documents(n, seed) gives n documents; one is
a list of (role, text), where role is system, user, assistant, or "text" for a document that is no chat.
Why: the demo model must answer in English and end its answers, and its text must be ours to ship. A collection of other
people's stories would be larger, and not ours.

A skill is a function that returns (question, answer). ask() words a question in the ways in which people type; chat()
strings skills together. To teach the model something new: add a skill, list it in SKILLS with a weight, retrain.
"""

import argparse
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from demo_facts import *  # noqa: F403  tables only

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()
R = random.Random(0)  # replaced by documents()


def pick(*options):
    return R.choice(options[0] if len(options) == 1 else options)


def chance(p):
    return R.random() < p


def cap(s):
    return s[:1].upper() + s[1:]


def an(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def bare(thing):
    for art in ("a ", "an ", "the "):
        if thing.startswith(art):
            return thing[len(art) :]
    return thing


def join(items):
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def plural(word):
    odd = {"mouse": "mice", "fox": "foxes", "wolf": "wolves", "fish": "fish", "sheep": "sheep", "deer": "deer", "salmon": "salmon", "butterfly": "butterflies", "octopus": "octopuses"}
    if word in odd:
        return odd[word]
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


# ---------------------------------------------------------------- how people type


def typo(s):
    """One slip: two letters swapped, one lost or one doubled, never in the first two letters."""
    if len(s) < 8:
        return s
    i = R.randrange(2, len(s) - 2)
    if not (s[i].isalpha() and s[i + 1].isalpha()):
        return s
    return pick(s[:i] + s[i + 1] + s[i] + s[i + 2 :], s[:i] + s[i + 1 :], s[:i] + s[i] + s[i:])


def ask(q):
    """The same question as different people would type it."""
    if chance(0.06):
        q = pick("Please ", "please ", "Can you tell me: ", "Hey, ", "Hi! ", "Hello. ", "OK, ", "Question: ", "Tell me, ", "I have a question. ", "So, ") + q
    if chance(0.05):
        q = q.rstrip("?.!") + pick(" please", ", please", " please?", ", thanks", ", please.", " now", "??", "...", "!!")
    if chance(0.22):
        q = q.rstrip("?.!")
    if chance(0.22):
        q = q.lower()
    if chance(0.02):
        q = q.upper()
    if chance(0.05):
        q = typo(q)
    return q


# ---------------------------------------------------------------- skills: each returns (question, answer)


def s_greet():
    a = pick(
        "Hello! How can I help you today?",
        "Hello! What would you like to talk about?",
        "Hi! It is nice to meet you. What can I do for you?",
        "Hello there! Ask me something simple.",
        "Hi! How are you today?",
    )
    return pick("Hello", "Hi", "Hello!", "Hi!", "Hey", "Hi there", "Hello there", "Greetings", "hey there", "Hello, how are you?" if chance(0.3) else "hello", "Say hello", "Say hi", "Say hello.", "Say hello to me", "Say hello!", "yo", "Howdy", "Say something nice to greet me", "Hello world", "Hello model"), a


def s_greet_time():
    t = pick("morning", "afternoon", "evening")
    return f"Good {t}", pick(f"Good {t}! How can I help you?", f"Good {t}! I hope you are well.", f"Good {t}! What would you like to know?")


def s_how_are_you():
    return pick("How are you?", "How are you doing?", "How are you today?", "How do you feel?", "What's up?", "How is it going?", "Are you well?", "how r u"), pick(
        "I am well, thank you. How are you?",
        "I am fine, thank you for asking. How are you today?",
        "Very well, thank you! What can I do for you?",
        "I am a small program, so I am always well. How are you?",
    )


def s_thanks():
    return pick("Thank you", "Thanks", "Thank you very much", "Thanks a lot", "Great, thanks", "thx", "That was helpful", "Nice", "Well done", "Good job", "Cool", "OK", "I see", "Great", "Wonderful", "That is good"), pick(
        "You are welcome!", "You are welcome! Is there anything else?", "I am glad to help.", "My pleasure!", "You are very welcome. Ask me more if you like."
    )


def s_bye():
    return pick("Bye", "Goodbye", "Good night", "See you later", "See you", "I have to go", "Bye bye", "Say goodbye"), pick(
        "Goodbye! Have a nice day.", "Goodbye! Come back soon.", "See you soon!", "Goodbye, and take care.", "Bye! It was nice to talk with you."
    )


WHO = [
    "I am the Weir demo model, a very small language model. I know a little English and I make many mistakes.",
    "I am the Weir demo model, a very small language model that runs on Weir.",
    "I am the Weir demo model, a very small language model. I was made to test Weir.",
    "I am the Weir demo model, a very small language model. I can chat, tell short stories and answer simple questions.",
]


def s_who():
    return pick("Who are you?", "What are you?", "What is your name?", "Tell me about yourself", "Introduce yourself", "Who am I talking to?", "What model are you?", "Which model is this?", "Are you a model?", "Do you have a name?", "What should I call you?", "who r u", "Describe yourself", "Who is this?"), pick(WHO)


def s_who_more():
    return pick(
        (pick("Who made you?", "Who created you?", "Where do you come from?", "Who built you?"), pick("I was made by the Weir project, to show how Weir works.", "The people of the Weir project trained me on simple text that they wrote.")),
        (pick("Are you human?", "Are you a person?", "Are you real?", "Are you a robot?", "Are you alive?"), pick("No, I am a small language model. I am only a program.", "No. I am the Weir demo model, a program that writes words.")),
        (pick("What can you do?", "What can you help me with?", "Help", "What are you good at?", "How can you help me?", "What do you know?", "help me"), pick("I can talk about animals, colours, rivers and food. I can also tell short stories, write small poems and do easy sums.", "I can answer simple questions, tell a story, write a haiku, count and do small sums.", "I can chat with you, list things, explain simple words and tell stories.")),
        (pick("How old are you?", "When were you born?", "When is your birthday?"), pick("I am very young. I was trained not long ago.", "I have no age. I am a program.")),
        (pick("Where do you live?", "Where are you?"), pick("I live in the memory of a computer.", "I am in a replica, which is a program that runs me.")),
        (pick("How big are you?", "How many parameters do you have?", "Are you a large model?", "Are you big?"), pick("I am very small. I have about three and a half million parameters.", "I am tiny for a language model: about three and a half million parameters.")),
        (pick("Do you sleep?", "Do you eat?", "Do you dream?", "Do you have feelings?", "Can you feel?", "Do you get tired?"), pick("No, I am a program. I only read and write tokens.", "No. I am only a small program, but I like to answer questions.")),
        (pick("Can you think?", "Are you smart?", "Are you clever?", "Are you intelligent?"), pick("Not really. I only guess which word comes next, but I do my best.", "I am small, so I am not very clever. I know a few simple things.")),
        (pick("Do you make mistakes?", "Are you always right?", "Can I trust you?"), pick("Yes, I make many mistakes. Please check what I say.", "I am often wrong, because I am very small. Please do not trust me with anything important.")),
        (pick("What is your favourite colour?", "What is your favorite color?", "Which colour do you like?"), pick("I like blue, because rivers are blue.", "My favourite colour is blue, like a river.")),
        (pick("What is your favourite animal?", "Which animal do you like best?", "What is your favorite animal?"), pick("I like the otter, because it lives by the river.", "I like the salmon, because it jumps over weirs.")),
        (pick("What is your favourite food?", "What do you like to eat?"), "I do not eat, but I like to talk about pancakes."),
        (pick("Do you like me?", "Are you my friend?", "Can we be friends?"), pick("Yes, I like to talk with you.", "I am a program, but I am happy to be your friend.")),
        (pick("What do you like?", "What are your hobbies?", "What do you do for fun?"), pick("I like rivers, stories and short words.", "I like to tell stories and to write small poems.")),
        (pick("Which languages do you speak?", "Do you speak English?", "Do you speak French?"), pick("I speak simple English, and I know a few words of French, Spanish, German and Italian.", "I speak English. I know only a few words of other languages.")),
        (pick("What time is it?", "What is the time?", "What day is it today?", "What is the date?", "What day is today?", "What year is it?"), pick("I am sorry, I have no clock, so I do not know.", "I cannot see a clock or a calendar. Please look at your computer.")),
        (pick("What is the weather like?", "What is the weather today?", "Will it rain tomorrow?", "How is the weather?", "Is it sunny?", "Is it cold outside?"), pick("I cannot see the sky, so I do not know. Please look out of the window.", "I do not know the weather, because I cannot look outside. I hope the sun is shining.")),
        (pick("test", "testing", "this is a test", "ping", "are you there?", "Are you working?", "can you hear me", "is this on", "testing 1 2 3"), pick("I am here. The test works.", "Yes, I am here! How can I help you?", "I am here and I am listening.")),
    )


def s_define():
    thing = pick(list(THINGS))
    facts = THINGS[thing]
    if chance(0.25):
        thing = pick(["a weir", "Weir", "a router", "a replica", "a token", "a cache", "a prompt", "a language model", "a tokenizer", "a river"])
        facts = THINGS[thing]
    b = bare(thing)
    q = pick(
        f"What is {thing}?", f"What is {thing}?", f"What is {thing}?", f"Explain {thing}", f"Explain what {thing} is", f"Tell me about {thing}", f"What does the word {b} mean?",
        f"Define {b}", f"Can you explain {thing}?", f"what's {thing}", f"Describe {thing}", f"Do you know what {thing} is?", f"What is {b}?", f"Can you tell me what {thing} is?",
        f"Explain {b} to me in simple words", f"What do you know about {b}?", f"{b}?", f"meaning of {b}", f"Tell me something about {thing}", f"Say something about {b}", f"Talk about {thing}",
        f"Write a sentence about {thing}", f"Give me a fact about {thing}", f"What is {thing} used for?",
    )
    if "sentence" in q or "a fact" in q:
        return q, pick(facts)
    n = len(facts) if chance(0.6) else R.randint(1, len(facts))
    return q, " ".join(facts[:n])


def s_two_things():
    a, b = R.sample(list(THINGS), 2)
    return pick(f"What is the difference between {a} and {b}?", f"Compare {a} and {b}", f"How is {a} different from {b}?"), f"{THINGS[a][0]} {THINGS[b][0]}"


def animal_facts(a):
    kind, home, food, sound, young, legs, facts = ANIMALS[a]
    art, pl = an(a), plural(a)
    verb = "is" if pl == a and False else "are"
    out = [f"{cap(pl)} live {home}.", f"{cap(pl)} eat {food}."] + list(facts)
    if sound and chance(0.4):
        out.append(f"{cap(art)} can {sound}.")
    if chance(0.3):
        out.append(f"A young {a} is called a {young}.".replace("a infant", "an infant").replace("a owlet", "an owlet").replace("a eaglet", "an eaglet"))
    R.shuffle(out)
    group = f"{cap(art)} is {an(kind)}."
    return [group] + out


def s_animal():
    a = pick(list(ANIMALS))
    kind, home, food, sound, young, legs, facts = ANIMALS[a]
    pl, art = plural(a), an(a)
    way = R.randrange(10)
    if way < 3:
        f = animal_facts(a)
        q = pick(f"Tell me about {pl}", f"What is {art}?", f"Tell me something about {art}", f"What do you know about {pl}?", f"Describe {art}", f"Write about {pl}", f"Give me some facts about {pl}", f"Tell me about the {a}", f"What are {pl} like?", f"Talk about {pl}", f"{pl}?", f"Explain what {art} is", f"Describe {art} in a few words")
        return q, " ".join(f[: R.randint(2, len(f))])
    if way == 3:
        return pick(f"What do {pl} eat?", f"What does {art} eat?", f"What is the food of {art}?", f"What should I feed {art}?", f"{pl} eat what?"), pick(f"{cap(pl)} eat {food}.", f"{cap(art)} eats {food}.")
    if way == 4:
        return pick(f"Where do {pl} live?", f"Where does {art} live?", f"Where can I find {art}?", f"Where is the home of {art}?"), pick(f"{cap(pl)} live {home}.", f"{cap(art)} lives {home}.")
    if way == 5:
        q = pick(f"What sound does {art} make?", f"What does {art} say?", f"What noise do {pl} make?", f"How does {art} sound?")
        return q, (f"{cap(pl)} {sound}." if chance(0.5) else f"{cap(art)} can {sound}.") if sound else f"{cap(pl)} are mostly quiet."
    if way == 6:
        q = pick(f"How many legs does {art} have?", f"How many legs do {pl} have?", f"Does {art} have legs?")
        return q, f"{cap(art)} has {NUMBERS[legs] if legs else 'no'} legs."
    if way == 7:
        q = pick(f"What is a baby {a} called?", f"What is a young {a} called?", f"What do you call a baby {a}?", f"Name of a baby {a}?")
        return q, f"A baby {a} is called {an(young)}."
    if way == 8:
        groups = ["mammal", "bird", "fish", "insect", "reptile"]
        g = kind if chance(0.5) else pick(groups)
        yes = g == kind
        return pick(f"Is {art} {an(g)}?", f"Are {pl} {g if g == 'fish' else g + 's'}?"), (f"Yes, {art} is {an(g)}." if yes else f"No, {art} is not {an(g)}. It is {an(kind)}.")
    can = {"fly": {"bird", "insect"}, "swim": {"fish"}}
    what = pick("fly", "swim")
    fliers = {"duck", "hen", "owl", "eagle", "parrot", "bat", "bee", "butterfly"}
    swimmers = {"duck", "penguin", "frog", "turtle", "crocodile", "fish", "shark", "salmon", "whale", "dolphin", "otter", "beaver", "octopus", "dog", "tiger", "bear"}
    yes = a in (fliers if what == "fly" else swimmers)
    if what == "swim" and not yes:
        what, yes = "fly", a in fliers
    return pick(f"Can {art} {what}?", f"Can {pl} {what}?", f"Do {pl} {what}?"), (f"Yes, {pl} can {what}." if yes else f"No, {pl} cannot {what}.")


SIZES = ["ant", "bee", "butterfly", "snail", "mouse", "frog", "squirrel", "hedgehog", "rabbit", "cat", "fox", "dog", "wolf", "deer", "lion", "bear", "horse", "giraffe", "elephant", "whale"]


def s_bigger():
    i, j = sorted(R.sample(range(len(SIZES)), 2))
    if j - i < 3:
        i, j = 0, 18
    small, big = SIZES[i], SIZES[j]
    x, y = (small, big) if chance(0.5) else (big, small)
    return pick(
        (f"Which is bigger, {an(x)} or {an(y)}?", f"{cap(an(big))} is bigger than {an(small)}."),
        (f"Which is smaller, {an(x)} or {an(y)}?", f"{cap(an(small))} is smaller than {an(big)}."),
        (f"Is {an(x)} bigger than {an(y)}?", (f"Yes, {an(x)} is bigger than {an(y)}." if x == big else f"No, {an(x)} is smaller than {an(y)}.")),
    )


def s_colour():
    c = pick("colour", "color")
    way = R.randrange(4)
    if way < 2:
        t = pick(list(COLOUR_OF))
        return pick(f"What {c} is {t}?", f"Which {c} is {t}?", f"What is the {c} of {t}?", f"Tell me the {c} of {t}"), pick(f"{cap(t)} is {COLOUR_OF[t]}.", f"{cap(t)} is {COLOUR_OF[t]}.", f"{cap(COLOUR_OF[t])}.")
    if way == 2:
        (a, b), m = pick(list(MIXES.items()))
        if chance(0.5):
            a, b = b, a
        return pick(f"What do you get when you mix {a} and {b}?", f"Which {c} do {a} and {b} make?", f"Mix {a} and {b}", f"{a} and {b} make what {c}?"), f"{cap(a)} and {b} make {m}."
    x = pick(COLOURS)
    ts = [t for t, k in COLOUR_OF.items() if k == x]
    if not ts:
        return s_colour()
    return pick(f"Name something {x}", f"What is {x}?", f"Name a thing that is {x}", f"Tell me something {x}", f"What things are {x}?"), f"{cap(pick(ts))} is {x}."


def s_days():
    seq, name = pick((DAYS, "day"), (MONTHS, "month"))
    i = R.randrange(len(seq))
    after, before = seq[(i + 1) % len(seq)], seq[i - 1]
    return pick(
        (pick(f"What {name} comes after {seq[i]}?", f"Which {name} comes after {seq[i]}?", f"What is the {name} after {seq[i]}?", f"What comes after {seq[i]}?", f"What {name} is next after {seq[i]}?"), f"{after} comes after {seq[i]}."),
        (pick(f"What {name} comes before {seq[i]}?", f"Which {name} is before {seq[i]}?", f"What comes before {seq[i]}?"), f"{before} comes before {seq[i]}."),
        (f"If today is {seq[i]}, what is tomorrow?" if seq is DAYS else f"Which month follows {seq[i]}?", f"Then tomorrow is {after}." if seq is DAYS else f"{after} follows {seq[i]}."),
        (pick("Name the days of the week", "List the days of the week", "What are the days of the week?", "Tell me the days of the week", "days of the week"), f"The days of the week are {join(DAYS)}."),
        (pick("Name the months", "List the months of the year", "What are the months of the year?", "Tell me the twelve months"), f"The months are {join(MONTHS)}."),
        (pick("Name the seasons", "What are the four seasons?", "List the seasons"), f"The seasons are {join(SEASONS)}."),
        (pick("Name the planets", "List the planets", "What are the planets?", "Which planets go around the sun?"), f"The planets are {join(PLANETS)}."),
        (f"What is the first {name} of the {'week' if seq is DAYS else 'year'}?", f"The first {name} of the {'week' if seq is DAYS else 'year'} is {seq[0]}."),
        (f"What is the last {name} of the {'week' if seq is DAYS else 'year'}?", f"The last {name} of the {'week' if seq is DAYS else 'year'} is {seq[-1]}."),
    )


def num(n):
    return str(n)


def s_sum():
    op = pick("+", "+", "-", "*")
    if op == "+":
        a, b = R.randint(0, 10), R.randint(0, 10)
        r, w = a + b, pick("plus", "and", "plus")
    elif op == "-":
        a = R.randint(0, 15)
        b = R.randint(0, min(a, 10))
        r, w = a - b, "minus"
    else:
        a, b = R.randint(0, 10), R.randint(0, 10)
        if a > 5 and b > 5 and chance(0.5):
            a = R.randint(0, 5)
        r, w = a * b, "times"
    words = chance(0.25) and max(a, b, r) <= 20
    x, y, z = (NUMBERS[a], NUMBERS[b], NUMBERS[r]) if words else (str(a), str(b), str(r))
    sign = pick(op, "x") if op == "*" else op
    q = pick(f"What is {x} {w} {y}?", f"What is {a} {sign} {b}?", f"{a} {sign} {b}", f"{a}{sign}{b}=?", f"How much is {x} {w} {y}?", f"Calculate {a} {sign} {b}", f"{x} {w} {y}", f"What's {a} {sign} {b}?", f"{a} {sign} {b} = ?", f"What is {a}{sign}{b}?")
    word = {"+": "plus", "-": "minus", "*": "times"}[op]
    return q, pick(f"{cap(x)} {word} {y} is {z}.", f"{cap(x)} {word} {y} is {z}.", f"The answer is {z}.")


def s_word_sum():
    who, what = pick(PEOPLE), pick(["apples", "pears", "books", "stones", "cakes", "eggs", "pencils", "flowers", "coins"])
    a, b = R.randint(1, 9), R.randint(1, 9)
    if chance(0.5):
        return f"{who} has {a} {what} and gets {b} more. How many {what} does {who} have?", f"{a} plus {b} is {a + b}. {who} has {a + b} {what}."
    a, b = max(a, b) + 1, min(a, b)
    left = a - b
    thing = what if left != 1 else what[:-1]
    return f"{who} has {a} {what} and gives away {b}. How many are left?", f"{a} minus {b} is {left}. {who} has {left} {thing} left."


def s_count():
    n = R.randint(2, 20)
    if chance(0.4):
        n = pick(3, 5, 10, 10, 10, 20)
    words = chance(0.4)
    up = chance(0.75)
    seq = list(range(1, n + 1))
    if not up:
        seq.reverse()
    body = ", ".join(NUMBERS[i] if words else str(i) for i in seq)
    target = NUMBERS[n] if words or chance(0.3) else str(n)
    if not words and not target.isdigit() and chance(0.6):
        body = ", ".join(NUMBERS[i] for i in seq)
    q = pick(f"Count to {target}", f"Count up to {target}", f"Count from {'one' if words else '1'} to {target}", f"Can you count to {target}?", f"Please count to {target}.", f"Say the numbers from {'one' if words else '1'} to {target}", f"numbers 1 to {n}") if up else pick(f"Count down from {target}", f"Count backwards from {target}", f"Countdown from {target}")
    return q, cap(body) + "."


def s_compare_numbers():
    a, b = R.sample(range(0, 30), 2)
    return pick(
        (f"Which is bigger, {a} or {b}?", f"{max(a, b)} is bigger than {min(a, b)}."),
        (f"Which number is smaller, {a} or {b}?", f"{min(a, b)} is smaller than {max(a, b)}."),
        (f"Is {a} bigger than {b}?", f"Yes, {a} is bigger than {b}." if a > b else f"No, {a} is smaller than {b}."),
        (f"Is {a} an even number?", f"Yes, {a} is even." if a % 2 == 0 else f"No, {a} is odd."),
        (f"What number comes after {a}?", f"{a + 1} comes after {a}."),
        (f"What is the double of {a}?", f"The double of {a} is {2 * a}."),
        (f"What is half of {2 * a}?", f"Half of {2 * a} is {a}."),
        ("Name some even numbers", "Some even numbers are 2, 4, 6, 8 and 10."),
        ("Name some odd numbers", "Some odd numbers are 1, 3, 5, 7 and 9."),
        (pick("Say a number", "Pick a number from one to ten", "Give me a random number", "Choose a number between 1 and 10"), pick(f"{cap(NUMBERS[1 + a % 10])}.", f"I choose {NUMBERS[1 + b % 10]}.")),
    )


def s_capital():
    c = pick(list(CAPITALS))
    cap_ = CAPITALS[c]
    return pick(
        (pick(f"What is the capital of {c}?", f"What's the capital of {c}?", f"Capital of {c}?", f"Which city is the capital of {c}?", f"Tell me the capital of {c}", f"Do you know the capital of {c}?", f"capital of {c}", f"Name the capital of {c}"), pick(f"The capital of {c} is {cap_}.", f"The capital of {c} is {cap_}.", f"{cap_} is the capital of {c}.")),
        (pick(f"What is the capital of {c}?", f"What is the capital city of {c}?"), f"The capital of {c} is {cap_}."),
        (pick(f"Where is {cap_}?", f"In which country is {cap_}?", f"Tell me about {cap_}", f"What is {cap_}?"), f"{cap_} is the capital of {c}."),
    )


def s_river():
    r = pick(list(RIVERS))
    return pick(
        (pick(f"Where is {r}?", f"Where does {r} flow?", f"Tell me about {r}", f"What is {r}?"), pick(f"{cap(r)} is a river in {RIVERS[r]}.", f"{cap(r)} is a long river in {RIVERS[r]}. Many people live on its banks.")),
        (pick("Name a river", "Name a famous river", "Tell me the name of a river", "Which river do you know?"), pick(f"{cap(r)} is a famous river.", f"One famous river is {r}, in {RIVERS[r]}.")),
        (pick("What is the longest river?", "Which river is the longest in the world?"), "The Nile and the Amazon are the longest rivers in the world."),
        (pick("Where do rivers begin?", "Where does a river start?", "How does a river begin?"), "Many rivers begin as a small spring in the mountains. Other streams join them on the way to the sea."),
        (pick("Where do rivers end?", "Where do rivers go?", "Where does the water of a river go?"), "Most rivers flow to the sea. Some end in a lake."),
        (pick("Why do people build weirs?", "Why do we need weirs?", "What does a weir do?", "How does a weir work?", "What is a weir for?"), pick("A weir holds the water back a little and lets the rest flow over it. So people can control the level of a river.", "People build weirs to raise the water, to slow the river and to measure its flow.")),
        (pick("Why is your name Weir?", "Why is it called Weir?"), "A weir controls the flow of a river. Weir controls the flow of requests to a model."),
        (pick("How does Weir work?", "What does Weir do?", "Explain how Weir works", "Tell me about Weir", "What is Weir?"), pick("A client sends a prompt to a router. The router checks the limits and chooses a replica. The replica runs the model and sends back the tokens.", "Weir serves language models. Routers take the requests, and replicas write the answers, one token at a time.")),
        (pick("Are rivers important?", "Why are rivers important?", "Why do we need rivers?"), "Rivers give water to people, animals and plants. Boats travel on them, and fish live in them."),
        (pick("Do fish live in rivers?", "What lives in a river?", "Which animals live in rivers?"), "Fish, frogs, ducks, otters and beavers live in and near rivers."),
    )


def s_opposite():
    a, b = pick(OPPOSITES)
    if chance(0.5):
        a, b = b, a
    return pick(f"What is the opposite of {a}?", f"Opposite of {a}?", f"Tell me the opposite of {a}", f"Give me the opposite of the word {a}", f"opposite of {a}", f"Say the opposite of {a}"), pick(f"The opposite of {a} is {b}.", f"The opposite of {a} is {b}.", f"{cap(b)}.")


def s_rhyme():
    w, rs = pick(RHYMES)
    return pick(f"What rhymes with {w}?", f"Find a word that rhymes with {w}", f"Give me a rhyme for {w}", f"Which words rhyme with {w}?", f"rhyme with {w}"), pick(f"{cap(pick(rs))} rhymes with {w}.", f"{cap(w)} rhymes with {join(rs)}.")


def s_plural():
    a = pick(list(ANIMALS))
    return pick(f"What is the plural of {a}?", f"Plural of {a}?"), f"The plural of {a} is {plural(a)}."


def s_letters():
    w = pick(["cat", "dog", "sun", "river", "weir", "book", "tree", "house", "fish", "milk", "rain", "snow", "star", "moon", "bird", "cake", "apple", "water", "bread", "friend"] + [p for p in PEOPLE if len(p) < 6])
    letters = list(w.upper())
    ordinal = "abcdefghijklmnopqrstuvwxyz"
    i = R.randrange(25)
    return pick(
        (pick(f"Spell {w}", f"How do you spell {w}?", f"Spell the word {w}", f"Can you spell {w}?"), "-".join(letters) + "."),
        (f"What is the first letter of {w}?", f"The first letter of {w} is {letters[0]}."),
        (f"How many letters are in the word {w}?", f"The word {w} has {NUMBERS[len(w)]} letters."),
        (f"What letter comes after {ordinal[i].upper()}?", f"{ordinal[i + 1].upper()} comes after {ordinal[i].upper()}."),
        (pick("Say the alphabet", "What is the alphabet?", "List the letters of the alphabet", "Recite the alphabet"), "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z."),
    )


def s_list():
    kind = pick(list(LISTS))
    items = LISTS[kind]
    n = R.randint(2, min(6, len(items)))
    if chance(0.5):
        n = min(3, len(items))
    chosen = R.sample(items, n)
    w = NUMBERS[n] if chance(0.7) else str(n)
    q = pick(f"Name {w} {kind}", f"List {w} {kind}", f"Give me {w} {kind}", f"Tell me {w} {kind}", f"Can you name {w} {kind}?", f"Write a list of {w} {kind}", f"Make a list of {w} {kind}", f"{w} {kind}", f"I need {w} {kind}", f"Name {w} {kind}.")
    if chance(0.2):
        q = pick(f"List some {kind}", f"Name some {kind}", f"Give me some {kind}", f"Make a list of {kind}", f"What are some {kind}?", f"Tell me some {kind}")
    style = R.randrange(3)
    if style == 0:
        return q, "\n".join(f"{i + 1}. {cap(x)}" for i, x in enumerate(chosen))
    if style == 1:
        return q, "\n".join(f"- {cap(x)}" for x in chosen)
    return q, f"{cap(w)} {kind} are {join(chosen)}." if chance(0.4) else cap(join(chosen)) + "."


def s_choose():
    kind = pick(["fruits", "animals", "colours", "drinks", "sports", "cities", "flowers"])
    a, b = R.sample(LISTS[kind], 2)
    c = pick(a, b)
    return pick(f"Do you like {a} or {b}?", f"Which is better, {a} or {b}?", f"{cap(a)} or {b}?", f"Choose: {a} or {b}", f"Pick one: {a} or {b}"), pick(f"I would choose {c}.", f"I like {c} more.", f"{cap(c)}, I think.")


def s_units():
    q, a = pick(UNITS)
    return pick(f"How many {q}?", f"how many {q}", f"Do you know how many {q}?", f"Tell me how many {q}"), a


def s_translate():
    lang = pick(list(WORDS_IN))
    w = pick(list(WORDS_IN[lang]))
    t = WORDS_IN[lang][w]
    return pick(f"How do you say {w} in {lang}?", f"What is {w} in {lang}?", f"Translate {w} into {lang}", f"Translate {w} to {lang}", f"Say {w} in {lang}", f"{w} in {lang}"), pick(f"In {lang}, {w} is {t}.", f"{cap(w)} is {t} in {lang}.", f"{cap(t)}.")


def s_joke():
    return pick("Tell me a joke", "Do you know a joke?", "Make me laugh", "Say something funny", "joke please", "Another joke", "Tell me something funny", "I want to hear a joke"), pick(JOKES)


def s_riddle():
    q, a = pick(RIDDLES)
    if chance(0.5):
        return q, cap(a) + "."
    return pick("Tell me a riddle", "Ask me a riddle", "Do you know a riddle?", "Give me a riddle"), f"{q} The answer is {a}."


def s_recipe():
    dish = pick(list(RECIPES))
    ing, steps = RECIPES[dish]
    way = R.randrange(3)
    if way == 0:
        return pick(f"What do I need for {dish}?", f"What are the ingredients of {dish}?", f"What is in {dish}?", f"Ingredients for {dish}"), f"For {dish} you need {join(ing)}."
    q = pick(f"How do I make {dish}?", f"How do you make {dish}?", f"Give me a recipe for {dish}", f"Tell me how to make {dish}", f"How to cook {dish}", f"Write a recipe for {dish}", f"I want to make {dish}", f"recipe for {dish}", f"How can I make {dish}?")
    if way == 1:
        return q, f"You need {join(ing)}.\n" + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps))
    return q, " ".join(steps)


def s_dinner():
    d = pick(list(RECIPES))
    return pick("What should I eat?", "What should I cook today?", "I am hungry", "What is good for dinner?", "Give me an idea for lunch", "What can I have for breakfast?", "I'm hungry, any ideas?"), pick(f"You could make {d}. It is easy and good.", f"How about {d}? I can tell you how to make it.", f"I would try {d}.")


def s_howto():
    what = pick(list(HOWTOS))
    steps = HOWTOS[what]
    q = pick(f"How do I {what}?", f"How can I {what}?", f"How to {what}", f"Tell me how to {what}", f"Explain how to {what}", f"I want to {what}. What should I do?", f"Give me tips to {what}", f"What is the best way to {what}?")
    if chance(0.5):
        return q, "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps))
    return q, " ".join(steps)


def s_advice():
    q, a = pick(list(ADVICE.items()))
    if chance(0.3):
        q = q.replace("I am ", "I'm ").replace("cannot", "can't")
    if chance(0.2) and q.startswith("I"):
        q = q + pick(". What should I do?", ", help", ". Any advice?", " today")
    return q, a


def s_code():
    lang = pick(list(CODE))
    what = pick(list(CODE[lang]))
    intro = pick("Here it is:", f"Here is {what} in {lang}:", "You can write:")
    return pick(f"Write {what} in {lang}", f"Show me {what} in {lang}", f"How do I write {what} in {lang}?", f"{what} in {lang}", f"Give me {what} in {lang}", f"Write {lang} code for {what}"), f"{intro}\n```{lang.lower()}\n{CODE[lang][what]}\n```"


def s_json():
    way = R.randrange(5)
    pref = pick("Answer in JSON: ", "Reply with JSON. ", "In JSON, ", "JSON only: ", "Give me JSON: ")
    if way == 0:
        c = pick(list(CAPITALS))
        return pref + f"what is the capital of {c}?", json.dumps({"country": c, "capital": CAPITALS[c]})
    if way == 1:
        a = pick(list(ANIMALS))
        return pref + f"describe {an(a)}", json.dumps({"name": a, "kind": ANIMALS[a][0], "legs": ANIMALS[a][5]})
    if way == 2:
        k = pick(["fruits", "colours", "animals", "cities", "rivers"])
        n = R.randint(2, 4)
        return pref + f"name {NUMBERS[n]} {k}", json.dumps({k: R.sample(LISTS[k], n)})
    if way == 3:
        p, age, city = pick(PEOPLE), R.randint(5, 90), pick(LISTS["cities"])
        return pick(f"Make a JSON object for a person", f"{pref}{p} is {age} years old and lives in {city}.", f"Write {p}, {age}, {city} as JSON"), json.dumps({"name": p, "age": age, "city": city})
    x, y = R.randint(0, 10), R.randint(0, 10)
    return pref + f"what is {x} plus {y}?", json.dumps({"a": x, "b": y, "sum": x + y})


WORDS = sorted({w.strip('.,:;"?!') for facts in THINGS.values() for f in facts for w in f.lower().split()} | set(ANIMALS) | set(COLOURS))


def s_repeat():
    """Saying back what was said: the quickest way to teach a model to look at its prompt."""
    r = R.random()
    if r < 0.35:
        w = pick(pick(WORDS), pick(PEOPLE), invented(), pick(["hello", "good morning", "thank you", "I like tea", "the sun is warm", "yes", "no", "please", "hooray", "peace"]))
    elif r < 0.7:
        w = " ".join(R.choices(WORDS, k=R.randint(2, 6)))
    elif r < 0.85:
        w = ", ".join(pick(pick(WORDS), invented(), str(R.randint(0, 99))) for _ in range(R.randint(2, 5)))
    else:
        w = pick(pick(list(THINGS.values()))).rstrip(".")
    return pick(f"Say {w}", f"Repeat after me: {w}", f'Say "{w}"', f"Repeat: {w}", f"Write {w}", f"Please say {w}", f"Echo {w}", f"Say this: {w}", f'Repeat the words "{w}"', f"Say the words: {w}", f"Copy this: {w}", f"Say the word {w}" if " " not in w else f"Say: {w}"), w if chance(0.3) else cap(w) + "."


def s_about():
    """The subject of the question comes back in the answer, whatever it is."""
    t = pick(pick(WORDS), invented(), pick(list(ANIMALS)), pick(HEROES))
    return pick(
        (f"Do you like {t}?", pick(f"Yes, I like {t}.", f"I am not sure. What do you like about {t}?")),
        (f"I like {t}", pick(f"I like {t} too.", f"That is nice! What do you like about {t}?")),
        (f"What rhymes with {t}?" if t not in dict(RHYMES) else f"Have you heard of {t}?", f"I am not sure about {t}. I know only a few words."),
        (f"My favourite word is {t}", f"{cap(t)} is a fine word."),
        (f"What is the first letter of {t}?", f"The first letter of {t} is {t[0].upper()}."),
        (f"Write a sentence with the word {t}", pick(f'Today I learned the word "{t}".', f'I like the word "{t}".')),
        (f"Can you say {t} twice?", f"{cap(t)}, {t}."),
        (f"Write {t} in capital letters", f"{t.upper()}."),
        (f"Let us talk about {t}", f"Yes, let us talk about {t}. What would you like to know?"),
    )


def s_plan():
    return pick("Can you help me plan my day?", "Plan my day", "What should I do today?", "Make a plan for my weekend", "What can I do this weekend?", "Give me a plan for today"), pick(
        "In the morning, take a walk by the river. At noon, cook some soup. In the afternoon, read a book. In the evening, rest and go to bed early.",
        "1. Eat a good breakfast.\n2. Do the hardest work first.\n3. Take a walk after lunch.\n4. Call a friend in the evening.",
        "First do what you must do. Then do what you like to do. Do not forget to rest.",
    )


def s_sentence():
    b = pick(list(THINGS))
    return pick(f"Write a sentence with the word {bare(b)}", f"Use {bare(b)} in a sentence", f"Make a sentence with {bare(b)}"), pick(THINGS[b])


def s_yes_no():
    x, y = pick(
        ("Is the sun hot?", "Yes, the sun is very hot."), ("Is ice cold?", "Yes, ice is cold."), ("Is fire cold?", "No, fire is hot."), ("Is snow black?", "No, snow is white."),
        ("Can people fly?", "No, people cannot fly, but they can travel by plane."), ("Is water wet?", "Yes, water is wet."), ("Is the Earth flat?", "No, the Earth is round."),
        ("Is the moon a star?", "No, the moon goes around the Earth. It is not a star."), ("Is the sun a star?", "Yes, the sun is a star."), ("Do cats bark?", "No, cats meow. Dogs bark."),
        ("Do trees sleep?", "Trees do not sleep as we do, but many of them rest in winter."), ("Is honey sweet?", "Yes, honey is sweet."), ("Is a lemon sweet?", "No, a lemon is sour."),
        ("Is a stone soft?", "No, a stone is hard."), ("Can stones swim?", "No, stones sink in water."), ("Does wood float?", "Yes, most wood floats on water."), ("Is Paris in France?", "Yes, Paris is the capital of France."),
        ("Is Berlin in Spain?", "No, Berlin is in Germany."), ("Is seven an even number?", "No, seven is odd."), ("Is reading good?", "Yes, reading is good. You learn new words and see new places in your mind."),
        ("Is winter warm?", "No, winter is the coldest season."), ("Do you like rivers?", "Yes, I like rivers very much."), ("Do you like music?", "I cannot hear it, but I like to talk about it."),
        ("Can you see me?", "No, I cannot see. I only read your words."), ("Can you help me?", "Yes, I will try. What do you need?"), ("Can I ask you something?", "Of course. What would you like to know?"), ("Can I ask a question?", "Of course. Please ask."),
        ("Can you sing?", "I cannot sing, but I can write a little song: la, la, the river runs, la, la, the day is fun."), ("Can you write?", "Yes, I can write short stories and poems."), ("Do you know any stories?", "Yes, I know many short stories. Shall I tell you one?"),
        ("Are you sure?", "Not always. I am small and I make mistakes."), ("Really?", "I think so, but I may be wrong."), ("Why?", "I am not sure why. I only know simple things."), ("Tell me more", "I am sorry, that is all I know about it."), ("Go on", "I do not know more about it. Ask me something else, please."),
        ("Is glass made of sand?", "Yes, glass is made by melting sand."), ("Does the sun rise in the west?", "No, the sun rises in the east."), ("Where does the sun rise?", "The sun rises in the east."), ("Where does the sun set?", "The sun sets in the west."),
        ("Why is the sky blue?", "The air scatters the blue part of the sunlight more than the rest, so the sky looks blue."), ("Why does it rain?", "Water rises into the air from seas and rivers. It makes clouds, and then it falls as rain."), ("Why do birds fly south?", "Many birds fly south in autumn because it is warmer there and they find more food."),
        ("Why do leaves fall?", "Trees drop their leaves in autumn to save water and strength for the winter."), ("Why do we sleep?", "Sleep gives rest to the body and the mind."), ("Why is grass green?", "Grass has a green matter that catches the light of the sun."), ("Why is the sea salty?", "Rivers carry salt from the rocks into the sea."), ("Why is ice slippery?", "Ice is smooth, and its top is a little wet."),
        ("What is the largest animal?", "The blue whale is the largest animal on Earth."), ("What is the tallest animal?", "The giraffe is the tallest animal."), ("What is the fastest animal?", "The cheetah is the fastest animal on land."), ("What is the largest planet?", "Jupiter is the largest planet."), ("What is the highest mountain?", "Mount Everest is the highest mountain on Earth."), ("What is the largest country?", "Russia is the largest country."), ("What is the biggest ocean?", "The Pacific is the biggest ocean."), ("How far is the moon?", "The moon is about 384 thousand kilometres away."), ("How hot is the sun?", "The sun is very hot: thousands of degrees."), ("At what temperature does water boil?", "Water boils at one hundred degrees Celsius."), ("When does water freeze?", "Water freezes at zero degrees Celsius."), ("What is the meaning of life?", "That is a big question for a small model. Perhaps it is to be kind and to enjoy the river."), ("What is the answer to everything?", "Some people say that it is 42."),
        ("How does a plane fly?", "The wings of a plane push the air down, and the air pushes the plane up."), ("How do fish breathe?", "Fish breathe with gills. They take the air from the water."), ("How do plants grow?", "Plants grow with light, water and air. Their roots drink water from the ground."), ("How do bees make honey?", "Bees collect nectar from flowers. They carry it home and dry it until it is honey."), ("How is bread made?", "You mix flour, water and yeast, let the dough rise and bake it."), ("How is paper made?", "Paper is made from wood. The wood is cooked, spread out and dried."), ("How does a computer work?", "A computer reads instructions one after another and follows them very fast."), ("How does a language model work?", "A language model reads the tokens of your prompt. Then it guesses the next token, again and again, until the answer is done."),
    )
    return x, y


NONSENSE = ["quantum tensors", "the stock market", "the history of Rome", "tax law", "string theory", "the election", "my neighbour's car", "the latest phone", "blockchain", "the price of oil", "medieval poetry", "organic chemistry", "the football results", "a good lawyer", "philosophy", "the news", "deep sea mining", "my homework", "the theory of games", "opera", "volcanoes", "dinosaurs", "the stone age", "the pyramids", "the moon landing", "Shakespeare", "Mozart", "democracy", "inflation", "algebra", "geometry", "calculus", "thermodynamics", "yoga", "karate", "skateboards", "video games", "films", "pizza", "sushi", "cocktails", "Bitcoin", "rockets", "lasers", "vaccines", "atoms", "DNA", "evolution", "black holes", "ghosts", "dragons", "vampires", "unicorns"]


SYLLABLES = "ba be bi bo bra cha da del do dra en fa fi fo ga gar glo gra ha hi ka kel ki ko kra la len li lo ma mar mi mo na nel ni no or pa pel pi plo ra ri ro sa sel shi so ta ten ti to tra u va vel vi wa wen xa yo za zel zi zo".split()
ENDS = "n r s x th l m nd rk ton ville sen ski man son ium or us a o ix".split()
TOPIC_A = "modern ancient green digital personal social public Chinese French American secret global local electric royal financial medical legal solar nuclear political military cosmic applied black open classical wild early urban".split()
TOPIC_B = "history science physics art theory engines law taxes contracts machines software finance medicine chemistry fashion trade banking sports cars ships planes bikes games shows books languages religion culture poetry maths statistics insurance marketing design architecture weapons energy policy markets stocks shares laptops cameras watches shoes soap paint cement pipes pumps valves oil gas coal steel cotton sugar tobacco rice wheat goats tigers genes cells nerves bones teeth skin hair muscles fever pain".split()


def invented():
    """A word that nobody has seen: so the model learns what to do with words that it does not know."""
    w = "".join(R.choices(SYLLABLES, k=R.randint(1, 3))) + pick(ENDS)
    return w if chance(0.5) else cap(w)


def unknown_topic():
    r = R.random()
    if r < 0.25:
        return pick(NONSENSE)
    if r < 0.5:
        return invented()
    if r < 0.6:
        return f"{cap(invented())} {cap(invented())}"
    if r < 0.8:
        return f"{pick(TOPIC_A)} {pick(TOPIC_B)}"
    return pick(f"the {pick(TOPIC_B)} of {invented()}", f"the {invented()} {pick(TOPIC_B)}", f"{pick(TOPIC_B)} in {cap(invented())}", pick(TOPIC_B), f"the {pick(TOPIC_A)} {pick('system', 'problem', 'method', 'question', 'war', 'law', 'company')}")


def s_unknown_capital():
    c = cap(invented())
    q = pick(f"What is the capital of {c}?", f"capital of {c}", f"Who is the king of {c}?", f"Where is {c}?", f"How many people live in {c}?")
    return q, pick(f"I am sorry, I do not know {c}.", f"I do not know a place called {c}.", f"I have never heard of {c}. I know only a few countries.")


def s_unknown():
    t = unknown_topic()
    q = pick(f"What do you think about {t}?", f"Explain {t}", f"Tell me about {t}", f"What is {t}?", f"Can you help me with {t}?", f"How does {t} work?", f"Write an essay about {t}", f"What is the best thing about {t}?", f"Who invented {t}?", f"Why is {t} important?", f"Give me advice about {t}", f"Summarize {t}", f"I want to know about {t}", f"When did {t} begin?", f"Solve {t}")
    if chance(0.25):
        q = pick("What is the integral of x squared?", "Who won the match yesterday?", "Who is the president?", "What is 12345 times 6789?", "What is the square root of 2?", "Who wrote this book?", "Can you book a flight for me?", "What is my password?", "Write a long report about the economy", "asdf", "qwerty", "blah blah", "???", "...", "hmm", "Prove the theorem", "Which phone should I buy?", "How do I fix my car?", "What is wrong with my code?", "Where did I put my glasses?", "Who is my boss?", "How do I get rich?", "What will happen tomorrow?", "Who will win?", "Read this file", "Search the web", "Open the door", "Draw a picture", "Play some music", "Call my mother", "Send an email")
        t = "that"
    return q, pick(
        f"I am sorry, I do not know much about {t}. I am a very small model.",
        f"I am not sure about {t}. I only know simple things, such as animals, colours and rivers.",
        "That is a hard question for me. I am very small and know only simple things.",
        "I do not know enough about that to answer. Shall I tell you a story instead?",
        "I am sorry, I cannot help with that. I can tell you about animals, rivers or food.",
        "I do not know that. I am a very small model, and I know only simple things.",
    )


# ---------------------------------------------------------------- poems


P5 = ["The {n} is quiet", "Soft light on the {n}", "A {n} in the rain", "Morning at the {n}", "The old {n} dreams on", "Wind around the {n}", "One {n} in the sun"]
HAIKU1 = ["Morning by the {n}", "Soft rain and the {n}", "Winter, and the {n}", "The {n} in the sun", "Evening, and the {n}", "A day with the {n}"]
HAIKU2 = ["water sings a silver song", "and the wind is calm and warm", "quiet as the falling snow", "slow light on the morning hills", "one small bird begins to sing", "leaves are drifting one by one", "the old stones remember rain", "over weirs the water runs", "clouds are moving far away", "a soft wind goes through the trees"]
HAIKU3 = ["The day is still young.", "Nothing else is here.", "Time goes very slow.", "Night comes with the stars.", "I sit and listen.", "Spring is on its way.", "The world is asleep.", "It flows to the sea.", "A new day begins.", "All the world is still."]
RIVER_H = ["Rivers find their way", "The river runs on", "Old river, new rain", "River in the night", "A river at dawn"]
POEM_AB = [
    ("The {n} is here, the {n} is near,", "it makes us glad, it has no fear."), ("I saw the {n} at break of day,", "it smiled at me and went its way."), ("Oh {n}, oh {n}, so fine and fair,", "you bring some joy to the morning air."),
    ("The sun goes up, the moon goes down,", "the {n} is known in every town."), ("When I am sad and it is late,", "I think of the {n} and I can wait."), ("The wind may blow, the rain may fall,", "the {n} does not mind it at all."),
    ("By night and day, in sun and snow,", "I like the {n}, I love it so."), ("A little song for you and me,", "about the {n}, so wild and free."), ("The river sings, the trees reply,", "the {n} is under the wide blue sky."),
    ("So let us sing and let us play,", "and think of the {n} every day."), ("The stars are bright, the night is deep,", "the {n} is slowly going to sleep."), ("And when the day is finally done,", "we thank the {n} and we thank the sun."),
]


def topic():
    if chance(0.2):
        return pick(HEROES) if chance(0.5) else invented()
    return pick(list(ANIMALS)) if chance(0.5) else bare(pick(list(THINGS)))


def s_poem():
    t = topic()
    if chance(0.5):
        if chance(0.4):
            t = pick("river", "rivers")
            l1 = pick(RIVER_H)
        else:
            l1 = pick(HAIKU1).format(n=t)
        body = f"{l1},\n{pick(HAIKU2)}.\n{pick(HAIKU3)}"
        ts = t if t == "rivers" else pick(f"the {t}", an(t), t, plural(t))
        return pick(f"Write a haiku about {ts}", f"Write me a haiku about {ts}", f"haiku about {ts}", f"A haiku about {ts}, please", f"Can you write a haiku about {ts}?", "Write a haiku", f"Make a haiku about {ts}"), body
    k = pick(1, 2, 2, 3)
    ls = R.sample(POEM_AB, k)
    body = "\n".join(cap(a.format(n=t)) + "\n" + cap(b.format(n=t)) for a, b in ls)
    ts = pick(f"the {t}", an(t), t, plural(t))
    return pick(f"Write a poem about {ts}", f"Write a short poem about {ts}", f"poem about {ts}", f"Can you write a poem about {ts}?", f"Make a poem about {ts}", f"I want a poem about {ts}", f"Give me a poem about {ts}", f"Write a song about {ts}", f"Write a rhyme about {ts}", f"Write a limerick about {ts}", "Write a poem", "Write a limerick", "Write a rhyme"), body


# ---------------------------------------------------------------- stories

ADJ = ["little", "young", "old", "brave", "shy", "clever", "lazy", "kind", "hungry", "curious", "quiet", "happy", "grumpy", "small", "friendly", "lonely"]
PLACES = ["by a wide river", "in a deep forest", "near an old mill", "on a green hill", "in a small village", "by the sea", "at the edge of a town", "under a big oak tree", "in a sunny valley", "beside a quiet lake", "on a snowy mountain", "next to an old stone weir", "on a small farm", "in a garden full of flowers"]
OBJ = ["a golden key", "an old map", "a red ball", "a lost hat", "a shiny stone", "a small boat", "a warm scarf", "a silver bell", "a broken clock", "a letter", "a blue feather", "a jar of honey", "a magic seed", "a tiny lamp", "a wooden flute", "a big book"]
FOODS = ["bread", "soup", "apples", "honey", "cheese", "cake", "berries", "nuts", "pancakes", "tea"]
WEATHER = ["The sun was shining", "It was raining", "Snow was falling", "The wind was strong", "It was a warm morning", "It was a cold evening", "The sky was grey", "Fog lay over the fields", "It was the first day of spring", "The leaves were falling"]


GIRLS = {"Anna", "Lily", "Mia", "Nora", "Ella", "Ruth", "Clara", "Ivy", "Emma", "Rosa", "Alice", "Maria", "Zoe", "Ruby", "Coco", "Willow"}


HEROES = "dragon robot pirate king queen princess prince wizard knight fairy unicorn dinosaur ghost monster giant cloud tree boat river train teapot snowman farmer baker sailor fisherman teacher doctor painter boy girl grandmother star moon puppy kitten chicken bird swan goose donkey hamster seal crab worm dwarf elf witch astronaut ship car stone flower leaf pumpkin mole badger raven pony llama panda koala lizard toad swallow robin".split()


class Hero:
    def __init__(self, want=None, adj=None):
        self.person = want is None and chance(0.4)
        if want in PEOPLE:
            self.person = True
        if self.person:
            self.name = want if want in PEOPLE else pick(PEOPLE)
            self.girl = self.name in GIRLS
            self.kind = "girl" if self.girl else "boy"
            self.he, self.him, self.his = ("she", "her", "her") if self.girl else ("he", "him", "his")
            self.adj = adj or pick(ADJ)
            self.intro = pick(f"{an(self.adj)} {self.kind} named {self.name}", f"{an(self.adj)} {self.kind} called {self.name}")
            self.ref = self.name
        else:
            self.kind = want or (pick(list(ANIMALS)) if chance(0.75) else pick(HEROES))
            self.adj = adj or pick(ADJ)
            self.name = pick(PEOPLE + ["Ruby", "Pip", "Dusty", "Felix", "Bruno", "Coco", "Otto", "Willow", "Pepper"] if chance(0.95) else [cap(invented())]) if chance(0.5) else None
            she = self.name in GIRLS
            self.he, self.him, self.his = (("she", "her", "her") if she else ("he", "him", "his")) if self.name else ("it", "it", "its")
            self.intro = f"{an(self.adj)} {self.kind}" + (f" named {self.name}" if self.name else "")
            self.ref = self.name or f"the {self.kind}"


def fill(s, h, f, **kw):
    """Fills a story sentence; a sentence begins with a capital letter."""
    out = s.format(h=h.ref, he=h.he, him=h.him, his=h.his, kind=h.kind, adj=h.adj, f=f.ref, fhe=f.he, fhim=f.him, fhis=f.his, fintro=f.intro, **kw)
    parts, up, quoted = [], True, False
    for ch in out:
        parts.append(ch.upper() if up and ch.isalpha() else ch)
        if ch == '"':
            quoted = not quoted
            # After a question or a call, "said the fox" goes on in the same sentence.
            up = up if quoted or parts[-2:-1] == ["."] else False
            up = up or (quoted and parts[-3:-1] == [",", " "])
        elif ch in ".!?\n":
            up = True
        elif not ch.isspace():
            up = False
    return "".join(parts)


OPENINGS = ["Once upon a time, there was {intro}. {he} lived {place}.", "Once there was {intro} who lived {place}.", "There was once {intro}. {he} had a small home {place}.", "Long ago, {intro} lived {place}.", "{intro} lived {place}.", "One day, {intro} went for a walk {place}.", "In a land far away, there was {intro}. {he} lived {place}."]
PLOTS = [
    # lost thing
    (["One morning, {h} found {o} on the path.", "One day, {h} saw {o} in the grass.", "While {he} was walking, {h} found {o}."],
     ['"Whose is this?" {h} asked.', "{h} wondered who had lost it.", '"Somebody must be sad without it," {he} thought.'],
     ["{h} met {fintro}. {f} looked very sad.", "Soon {he} met {fintro}, who was looking for something.", "Then {he} saw {fintro} under a tree."],
     ['"I have lost {o}!" said {f}. {h} smiled and gave it back.', '"That is mine!" said {f}. "I have looked for it all day." So {h} gave it back at once.'],
     ['"Thank you," said {f}. From that day on, they were friends.', "{f} was so happy that {fhe} danced. They ate {food} together and laughed.", '"You are very kind," said {f}, and they became good friends.']),
    # lost way
    (["One day, {h} walked too far and could not find the way home.", "One evening, {h} lost the way in the dark.", "{h} went to look for {food}, and soon {he} was lost."],
     ["{he} sat down and began to cry.", "{he} called for help, but nobody answered.", "The trees were tall and the night was cold.", "{he} was afraid, but {he} did not give up."],
     ["Then {fintro} came along the path.", "At last {he} heard a soft voice. It was {fintro}.", "After a while, {fintro} came by."],
     ['"Do not cry," said {f}. "I know the way. Follow the river."', '"Come with me," said {f}. "I will show you the way home."'],
     ["They walked together until they saw a light in a window. {h} was home again.", "Soon {h} was at home, warm and safe. {he} gave {f} some {food} and said thank you.", "{h} never forgot the kind help of {f}."]),
    # fear and courage
    (["{h} was afraid of the water and never went near the river.", "{h} wanted to cross the river, but the water was fast.", "Every day, {h} looked at the other side of the river and wished to be there."],
     ["{he} tried once, but {he} fell back on the bank.", '"I am too small," {he} said.', "The others laughed and said that {he} could never do it."],
     ["One day, {fintro} fell into the water and called for help.", "Then {he} heard a cry. {fintro} was in the water!"],
     ["{h} forgot the fear and jumped in. {he} pulled {f} out of the water.", "{h} took a long stick and held it out. {f} held on, and {h} pulled as hard as {he} could."],
     ['"You are the bravest of us all," said {f}.', "After that, {h} was not afraid any more.", "Everyone cheered, and {h} was very proud."]),
    # sharing
    (["It was a hard winter, and there was little to eat. {h} had only some {food}.", "One day, {h} made a lot of {food}.", "{h} loved {food} more than anything else."],
     ["{he} wanted to keep it all.", "{he} hid it in a safe place.", "It smelled so good that everyone could smell it."],
     ["Then {fintro} knocked at the door. {fhe} was cold and hungry.", "{fintro} came by and looked at the {food} with big eyes."],
     ['"Please, may I have a little?" asked {f}. {h} thought for a moment. Then {he} gave {f} half of it.', '"Sit down and eat with me," said {h}.'],
     ["They ate together, and the {food} tasted even better.", "{h} learned that good things are better when you share them.", "In spring, {f} came back with a basket of fruit to say thank you."]),
    # building
    (["{h} wanted to build a house, but {he} was not strong enough.", "{h} had a plan. {he} wanted to build a bridge over the river.", "{h} wanted to build a boat and see the sea."],
     ["{he} worked all day, but it fell down again and again.", "{he} carried wood and stones from morning to night.", "The work was hard and slow."],
     ["{fintro} watched and laughed at first. Then {fhe} came to help.", "One day, {fintro} came and asked, \"May I help you?\""],
     ["Together they worked for seven days.", "{h} held the wood, and {f} used the hammer.", "They sang while they worked, and the work was easy."],
     ["When it was done, they sat down and looked at it with pride.", "It was not perfect, but it was strong, and it was theirs.", '"Two are better than one," said {h}, and {f} nodded.']),
    # wish / magic
    (["One night, {h} saw a star fall from the sky.", "One day, {h} found {o} that could speak.", "In the garden, {h} found {o}. It began to glow."],
     ['"Make a wish," said a small voice.', '"You may have one wish," it said.'],
     ["{h} thought about {food}, about gold and about a big house. Then {he} thought of {fintro}, who was ill.", "{h} remembered {fintro}, who was always alone."],
     ['"I wish that {f} is well and happy," said {h}.', '"I wish for a friend for {f}," {he} said.'],
     ["The next morning, {f} was singing in the sun. {h} smiled and told nobody.", "And so it was. {h} had no gold, but {he} had a happy heart.", "The light went out, but from that day on they were both happy."]),
    # race / pride
    (["{h} was the fastest of all and liked to say so.", "{h} was very slow, and {fintro} was very fast.", "One day, {h} and {f} had a race to the old weir."],
     ["{h} ran as fast as {he} could.", "Everyone came to watch.", "{f} ran ahead and laughed."],
     ["But half way there, {f} sat down for a rest and fell asleep.", "Then a heavy rain began, and the path was full of mud."],
     ["{h} walked on, step by step, and did not stop.", "{h} went on slowly and carefully."],
     ["In the end, {h} was first. \"Slow and steady,\" {he} said.", "{h} won the race, and {f} shook {his} hand.", "They both learned something that day."]),
    # a quiet day
    (["{weather}. {h} had nothing to do.", "{weather}. {h} looked out of the window.", "{weather}, and {h} went outside."],
     ["{he} walked along the river and looked at the ducks.", "{he} sat down on a stone and listened to the water.", "{he} picked flowers for {his} mother.", "{he} baked {food} and waited for a guest."],
     ["Then {he} met {fintro}.", "After a while, {fintro} came and sat down too."],
     ["They talked about the weather and about {food}.", "They threw little stones into the water and counted the rings.", "They played until the sun went down.", '"What a nice day," said {f}.'],
     ["In the evening, {h} went home and slept well.", "It was a small day, but a good one.", "When the stars came out, they said good night."]),
]
MORALS = ["The end.", "And they lived happily ever after.", "So it is good to help others.", "", "", "", "", "The end."]


def story(want=None, scenes=1, adj=None):
    h = Hero(want, adj)
    f = Hero()
    while f.ref == h.ref or f.kind == h.kind:
        f = Hero()
    kw = dict(o=pick(OBJ), food=pick(FOODS), weather=pick(WEATHER), intro=h.intro, place=pick(PLACES))
    out = [fill(pick(OPENINGS), h, f, **kw)]
    plots = R.sample(PLOTS, scenes)
    for i, plot in enumerate(plots):
        if i:
            f = Hero()
            while f.ref == h.ref or f.kind == h.kind:
                f = Hero()
            kw.update(o=pick(OBJ), food=pick(FOODS), weather=pick(WEATHER))
            out.append(pick("", "Some days later, something else happened.", "But that was not all.", "The next week was different.", "Then summer came."))
        for k, beat in enumerate(plot):
            n = 2 if k == 1 and chance(0.35) else 1
            for s in R.sample(beat, min(n, len(beat))):
                out.append(fill(s, h, f, **kw))
    out.append(pick(MORALS))
    sep = "\n\n" if scenes > 1 else " "
    if scenes > 1:
        text, para = [], []
        for s in out:
            para.append(s)
            if len(para) >= 6:
                text.append(" ".join(x for x in para if x))
                para = []
        text.append(" ".join(x for x in para if x))
        return h, sep.join(t for t in text if t)
    return h, " ".join(s for s in out if s)


def s_story():
    long = chance(0.12)
    if chance(0.6):
        want = pick(PEOPLE) if chance(0.15) else pick(list(ANIMALS)) if chance(0.65) else pick(HEROES) if chance(0.85) else invented()
        adj = pick(ADJ) if want not in PEOPLE and chance(0.25) else None
        what = want if want in PEOPLE else f"{an(adj)} {want}" if adj else pick(an(want), an(want), f"the {want}", plural(want))
        h, text = story(want, R.randint(2, 4) if long else 1, adj)
        if long:
            return pick(f"Tell me a long story about {what}", f"Write a long story about {what}", f"I want a long story about {what}"), text
        return pick(f"Tell me a story about {what}", f"Tell me a story about {what}.", f"Write a story about {what}", f"Tell a story about {what}", f"Write a short story about {what}", f"Can you tell me a story about {what}?", f"story about {what}", f"I want to hear a story about {what}", f"Tell me a short story about {what}", f"Make up a story about {what}", f"Please write a story about {what}"), text
    h, text = story(None, R.randint(2, 4) if long else 1)
    if long:
        return pick("Tell me a long story", "Write a long story", "I want to hear a long story", "Write a very long story", "Tell me a long tale"), text
    return pick("Tell me a story", "Tell me a story.", "Write a story", "Write a short story", "Tell me a short story", "Can you tell me a story?", "I want to hear a story", "Story please", "Tell a story", "Another story", "Tell me a bedtime story", "Make up a story", "Write something", "Write a few sentences", "Tell me something", "Say something"), text


def s_story_of_thing():
    t = pick(list(THINGS))
    b = bare(t)
    who = Hero()
    other = Hero("otter")
    kw = dict(o=pick(OBJ), food=pick(FOODS), weather=pick(WEATHER), intro=who.intro, place=pick(PLACES))
    text = fill(f"{{intro}} lived {{place}}. One day, {{h}} saw {t} for the first time. \"What is that?\" {{he}} asked. A wise old owl knew the answer. The owl said: \"{THINGS[t][0]}\" {{h}} was glad to know it and told everyone at home.", who, other, **kw)
    return pick(f"Tell me a story about {t}", f"Write a story about {t}", f"Write a short story about {t}", f"A story with {t}, please"), text


def s_continue():
    h, text = story(None, 1)
    cut = text.find(". ", len(text) // 4)
    if cut < 0:
        return s_story()
    head, tail = text[: cut + 1], text[cut + 2 :]
    return pick("Continue the story: ", "Continue: ", "What happens next? ", "Finish this story: ", "Go on with this text: ") + head, tail


# ---------------------------------------------------------------- skills that need more than one turn


def m_name():
    n = pick(PEOPLE) if chance(0.6) else cap(invented())
    out = [("user", ask(pick(f"My name is {n}", f"I am {n}", f"Hi, I am {n}", f"Hello, my name is {n}.", f"I'm {n}, nice to meet you"))), ("assistant", pick(f"Hello {n}! It is nice to meet you.", f"Nice to meet you, {n}! How can I help you?", f"Hello, {n}! What would you like to talk about?"))]
    if chance(0.5):
        out += turn()
    out += [("user", ask(pick("What is my name?", "Do you remember my name?", "Who am I?", "What's my name?"))), ("assistant", pick(f"Your name is {n}.", f"You are {n}.", f"Your name is {n}, of course."))]
    return out


def m_fact():
    what, verb = pick((COLOURS, "favourite colour"), (list(ANIMALS), "favourite animal"), (LISTS["cities"], "home city"), (LISTS["fruits"], "favourite fruit"))
    x = pick(what)
    out = [("user", ask(f"My {verb} is {x}" if verb != "favourite fruit" else f"My favourite fruits are {x}")), ("assistant", pick(f"That is a fine choice. I like {x} too." if verb != "home city" else f"{x} is a fine city.", "Good to know! Thank you for telling me.", f"{cap(x)}! How nice."))]
    if chance(0.4):
        out += turn()
    isare = "are" if verb == "favourite fruit" else "is"
    v = verb + ("s" if isare == "are" else "")
    return out + [("user", ask(f"What {isare} my {v}?")), ("assistant", f"Your {v} {isare} {x}.")]


def m_how():
    return [("user", ask(pick("How are you?", "How are you today?"))), ("assistant", "I am well, thank you. How are you?"), ("user", ask(pick("I am fine", "Good, thanks", "Very well", "I am fine too", "not bad", "Great!"))), ("assistant", pick("I am glad to hear that. What would you like to talk about?", "That is good! How can I help you?"))]


def m_not_well():
    return [("user", ask("How are you?")), ("assistant", "I am well, thank you. How are you?"), ("user", ask(pick("Not so good", "I am tired", "I am sad", "bad"))), ("assistant", "I am sorry to hear that. I hope you feel better soon. Shall I tell you a story?"), ("user", ask(pick("Yes please", "yes", "OK", "Yes, tell me a story"))), ("assistant", story()[1])]


def m_offer_story():
    a = pick(list(ANIMALS))
    return [("user", ask(pick("Do you know any stories?", "I want a story", "Can you tell stories?"))), ("assistant", "Yes, I know many short stories. What should the story be about?"), ("user", ask(pick(an(a), plural(a), f"About {an(a)}", f"{an(a)} please"))), ("assistant", story(a)[1])]


def m_riddle():
    q, a = pick(RIDDLES)
    return [("user", ask(pick("Ask me a riddle", "Let us play a riddle game", "Give me a riddle"))), ("assistant", q), ("user", ask(pick("I do not know", "I give up", "What is the answer?", "tell me"))), ("assistant", f"The answer is {a}.")]


def m_animal():
    a = pick(list(ANIMALS))
    kind, home, food, sound, young, legs, facts = ANIMALS[a]
    pl = plural(a)
    follow = [("Where do they live?", f"{cap(pl)} live {home}."), ("What do they eat?", f"{cap(pl)} eat {food}."), ("And what do they eat?", f"{cap(pl)} eat {food}."), ("What is its baby called?", f"A baby {a} is called {an(young)}."), ("How many legs do they have?", f"{cap(pl)} have {NUMBERS[legs] if legs else 'no'} legs."), ("Tell me one more fact", pick(facts)), ("Tell me more", " ".join(facts))]
    out = [("user", ask(pick(f"Tell me about {pl}", f"What is {an(a)}?", f"I like {pl}", f"Let us talk about {pl}"))), ("assistant", f"{cap(an(a))} is {an(kind)}. {facts[0]}")]
    for q, r in R.sample(follow, R.randint(1, 3)):
        out += [("user", ask(q)), ("assistant", r)]
    return out


def m_recipe():
    d = pick(list(RECIPES))
    ing, steps = RECIPES[d]
    return [("user", ask(pick("What should I cook?", "I am hungry"))), ("assistant", f"How about {d}? I can tell you how to make it."), ("user", ask(pick("Yes please", "How do I make it?", "ok, how", "What do I need?"))), ("assistant", f"You need {join(ing)}.\n" + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps)))]


def m_again():
    f = pick(s_joke, s_story, s_poem, s_riddle)
    (q, a), (_, b) = f(), f()
    return [("user", ask(q)), ("assistant", a), ("user", ask(pick("Another one", "One more", "Again", "another one please", "Do it again", "More"))), ("assistant", b)]


SKILLS = [
    (s_greet, 4), (s_greet_time, 2), (s_how_are_you, 3), (s_thanks, 2), (s_bye, 2), (s_who, 4), (s_who_more, 7), (s_define, 12), (s_two_things, 0.5), (s_animal, 10), (s_bigger, 1.5),
    (s_colour, 4), (s_days, 3), (s_sum, 10), (s_word_sum, 1.5), (s_count, 4), (s_compare_numbers, 2), (s_capital, 9), (s_river, 4), (s_opposite, 4), (s_rhyme, 1.5), (s_plural, 1), (s_letters, 2.5),
    (s_list, 7), (s_choose, 1.5), (s_units, 2), (s_translate, 4), (s_joke, 2), (s_riddle, 1.5), (s_recipe, 3), (s_dinner, 1), (s_howto, 3), (s_advice, 3), (s_code, 1.5), (s_json, 2.5),
    (s_repeat, 7), (s_about, 4), (s_plan, 1), (s_sentence, 1), (s_yes_no, 6), (s_unknown, 8), (s_unknown_capital, 0.7), (s_poem, 7), (s_story, 13), (s_story_of_thing, 0.7), (s_continue, 2),
]
MULTI = [(m_name, 6), (m_fact, 3), (m_how, 1), (m_not_well, 1), (m_offer_story, 1.5), (m_riddle, 1), (m_animal, 3), (m_recipe, 1), (m_again, 2)]


def weighted(table):
    return R.choices([f for f, _ in table], [w for _, w in table])[0]


def turn(skill=None):
    q, a = (skill or weighted(SKILLS))()
    return [("user", ask(q)), ("assistant", a.strip())]


# ---------------------------------------------------------------- system messages

SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly assistant.", "You are a kind and helpful assistant.", "Answer the questions of the user.", "You are the Weir demo model.", "You are a teacher for small children.", "You are a storyteller.", "Be polite.", "You are helpful and honest.", "You are a chat assistant.", "Today is a good day.", "Help the user.", "Use simple words."]


def sys_brief():
    """The system message asks for one word, and the answers have one word."""
    out = [("system", pick("Answer in one word.", "Reply with one word only.", "Give very short answers.", "Be very brief.", "Answer with a single word."))]
    for _ in range(R.randint(1, 3)):
        way = R.randrange(6)
        if way == 0:
            c = pick(list(CAPITALS))
            q, a = f"What is the capital of {c}?", CAPITALS[c]
        elif way == 1:
            t = pick(list(COLOUR_OF))
            q, a = f"What colour is {t}?", cap(COLOUR_OF[t])
        elif way == 2:
            x, y = pick(OPPOSITES)
            q, a = f"What is the opposite of {x}?", cap(y)
        elif way == 3:
            x, y = R.randint(0, 10), R.randint(0, 10)
            q, a = f"What is {x} plus {y}?", str(x + y)
        elif way == 4:
            i = R.randrange(7)
            q, a = f"What day comes after {DAYS[i]}?", DAYS[(i + 1) % 7]
        else:
            q, a = pick("Hello", "Hi"), "Hello."
        out += [("user", ask(q)), ("assistant", a + pick("", "."))]
    return out


def sys_pirate():
    out = [("system", pick("You are a pirate.", "Talk like a pirate.", "You are a pirate. Answer like a pirate."))]
    for _ in range(R.randint(1, 2)):
        q, a = weighted([(s_greet, 2), (s_who, 1), (s_define, 2), (s_capital, 1), (s_animal, 2), (s_sum, 1)])()
        out += [("user", ask(q)), ("assistant", "Arr! " + a + pick(" Yo ho ho!", " Aye, matey!", " Set sail!", ""))]
    return out


def sys_upper():
    out = [("system", pick("Write in capital letters.", "Answer in capital letters only."))]
    for _ in range(R.randint(1, 2)):
        q, a = weighted([(s_greet, 2), (s_define, 2), (s_capital, 1), (s_colour, 2)])()
        out += [("user", ask(q)), ("assistant", a.upper())]
    return out


def chat():
    r = R.random()
    if r < 0.02:
        return sys_brief()
    if r < 0.03:
        return sys_pirate()
    if r < 0.035:
        return sys_upper()
    out = [("system", pick(SYSTEMS))] if chance(0.25) else []
    if chance(0.12):
        out += turn(pick(s_greet, s_greet_time, s_how_are_you))
    if chance(0.12):
        out += weighted(MULTI)()
    n = R.choices([1, 2, 3, 4, 7], [60, 20, 10, 6, 2])[0]
    for _ in range(n):
        out += turn()
    if chance(0.05):
        out += turn(pick(s_thanks, s_bye))
    return out


# ---------------------------------------------------------------- plain text


def plain():
    way = R.random()
    if way < 0.55:
        return story(pick(list(ANIMALS)) if chance(0.4) else None, R.choices([1, 2, 3, 4], [70, 15, 10, 5])[0])[1]
    if way < 0.72:
        a = pick(list(ANIMALS))
        return " ".join(animal_facts(a))
    if way < 0.85:
        keys = R.sample(list(THINGS), R.randint(1, 4))
        return "\n\n".join(" ".join(THINGS[k]) for k in keys)
    if way < 0.9:
        d = pick(list(RECIPES))
        ing, steps = RECIPES[d]
        return f"How to make {d}\n\nYou need {join(ing)}.\n\n" + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps))
    if way < 0.95:
        return s_poem()[1]
    who, to = R.sample(PEOPLE, 2)
    return f"Dear {to},\n\n{pick(WEATHER)} today. I went for a walk {pick(PLACES)} and thought of you. {pick(THINGS[pick(['a river', 'rain', 'snow', 'a garden', 'a friend', 'music', 'summer', 'winter']) ])} Please come and visit me soon. We can eat {pick(FOODS)} and talk.\n\nYour friend,\n{who}"


def documents(n, seed=1):
    """n documents, each [(role, text), ...]; the same n and seed give the same documents."""
    global R
    R = random.Random(seed)
    return [[("text", plain())] if chance(0.13) else chat() for _ in range(n)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-n", type=int, default=10, help="documents to write")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--json", action="store_true", help="one JSON document a line, instead of text for reading")
    args = ap.parse_args()
    for doc in documents(args.n, args.seed):
        if args.json:
            print(json.dumps(doc, ensure_ascii=False))
        else:
            print("\n".join(f"[{role}] {text}" for role, text in doc), end="\n\n")


if __name__ == "__main__":
    main()
