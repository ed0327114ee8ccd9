"""The words of the games: common English, by category, in two halves that share no word.

A category is named by the noun that the texts of the games use for its words. Scales are categories whose words have
an order that everybody knows. No word has a blank, a hyphen or an apostrophe, none is "a" or "I", which an answer may
hold beside its words.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

Words = tuple[str, ...]
Vocabulary = Mapping[str, Words]
"""Words by the noun for them."""


def _split(lists: Mapping[str, str]) -> Vocabulary:
    return {noun: tuple(words.split()) for noun, words in lists.items()}


TRAINING: Vocabulary = _split(
    {
        "color": "red blue green white black yellow orange purple brown gray pink",
        "person": "John Mary Peter Paul Anna Tom David Alice Bob James Sarah Jack Adam Ben Sam Max Emily Jane Martin",
        "key": "B C D E F G H J K L M N P Q R T U V W X Y Z",
        "material": "iron wood stone glass paper gold metal plastic sand clay silver steel copper marble brick",
        "food": "rice bread meat egg sugar salt soup cheese butter honey cake pasta pizza sandwich salad",
        "drink": "water milk tea coffee juice beer wine soda cocoa lemonade",
        "fruit": "apple pear banana cherry grape lemon peach plum melon mango fig lime",
        "place": "office library hall house school church park bank shop farm market station bridge river lake forest",
        "part": "head hand foot eye ear nose mouth arm leg heart neck face hair skin bone brain knee",
        "title": "king bishop lord president doctor teacher student artist writer author manager driver",
        "shape": "circle square line point cross star cube box curve wave arrow triangle sphere",
        "weather": "rain snow wind fog storm hail frost thunder sunshine cloud",
        "garment": "shirt coat hat dress skirt sock shoe glove scarf jacket belt boot",
        "relative": "mother father sister brother aunt uncle cousin son daughter nephew niece",
        "feeling": "joy fear anger hope love pride shame envy trust grief surprise",
        "tree": "oak pine maple birch willow cedar elm ash beech palm",
        "activity": "run jump swim sing dance read write draw cook sleep climb laugh",
        "quality": "big small old new fast slow hard soft sweet sour heavy light clean dirty",
        "meal": "breakfast lunch dinner supper snack brunch picnic feast",
        "room": "kitchen bedroom bathroom attic basement garage hallway cellar pantry study",
        "fabric": "cotton wool silk linen velvet denim lace leather nylon felt",
        "subject": "math history music art science physics biology chemistry geography grammar",
        "toy": "doll kite puzzle balloon robot marbles blocks puppet yo top swing",
        "jewel": "ruby diamond pearl emerald sapphire opal amber jade topaz",
        "spice": "pepper cinnamon ginger garlic mint basil vanilla mustard saffron thyme",
        "container": "bag basket bottle bucket jar barrel crate sack pot tin drawer",
        "building": "tower castle palace temple hotel hospital theater museum factory prison barn",
        "chapter": "start middle end preface index summary appendix",
        "piece": "pawn knight rook queen dice token",
        "coin": "penny dime nickel quarter dollar euro pound yen franc peso",
        "sense": "sight smell taste touch hearing balance",
        "word": "yes no maybe please thanks hello sorry welcome",
        "wish": "health wealth peace fame power luck wisdom beauty freedom time",
        "landscape": "hill valley desert island beach meadow swamp canyon cave cliff",
        "hero": "wizard pirate giant dragon fairy witch prince elf ghost monster",
        "sound": "bang whisper scream ring click buzz whistle roar hum splash",
        "event": "wedding party parade concert festival fair election trial meeting game",
    }
)
"""37 categories for training."""

HELD_OUT: Vocabulary = _split(
    {
        "animal": "cat dog horse pig lion bear wolf fox mouse cow sheep goat tiger rabbit monkey",
        "bird": "eagle crow owl duck goose swan robin hawk parrot pigeon",
        "insect": "bee ant wasp fly moth beetle spider cricket mosquito",
        "country": "China India Japan France Germany Spain Italy Russia Canada Brazil Mexico Egypt Sweden",
        "city": "London Rome Berlin Madrid Tokyo Moscow Vienna Athens Lisbon Dublin Prague Cairo",
        "language": "English French German Spanish Italian Russian Chinese Japanese Arabic Dutch",
        "direction": "north south east west upper lower forward backward inward outward",
        "object": "table chair bed door window floor wall book pen clock cup plate card lamp mirror",
        "tool": "hammer saw drill wrench knife axe shovel rake pliers ladder",
        "instrument": "piano guitar violin flute drum trumpet harp organ cello banjo",
        "vehicle": "car bus bicycle boat ship plane truck van tram taxi rocket",
        "vegetable": "carrot onion potato tomato pea bean corn cabbage spinach celery lettuce",
        "flower": "rose lily daisy tulip orchid poppy iris jasmine lavender sunflower",
        "sport": "tennis soccer golf hockey rugby boxing rowing skiing baseball cycling",
        "profession": "baker farmer nurse lawyer pilot sailor soldier plumber painter tailor dentist",
        "team": "Bulls Rangers Sharks Eagles Bears Wolves Dolphins Falcons",
    }
)
"""16 further ones."""

TRAINING_SCALES: Vocabulary = _split(
    {
        "digit": "0 1 2 3 4 5 6 7 8 9",
        "letter": "B C D E F G H J K L M N P Q R T U V W X Y Z",
        "number": "one two three four five six seven eight nine ten eleven twelve",
        "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "rank": "first second third fourth fifth sixth seventh eighth ninth tenth",
        "price": "10 20 30 40 50 60 70 80 90 100",
    }
)
"""Words in their order, for training. The letters leave out those that are words or look like digits."""

HELD_OUT_SCALES: Vocabulary = _split(
    {
        "month": "January February March April May June July August September October November December",
        "planet": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
        "year": "2001 2002 2003 2004 2005 2006 2007 2008 2009 2010 2011 2012",
        "multiple": "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty",
        "temperature": "freezing cold cool mild warm hot boiling",
    }
)
"""Further ones."""

MIXED_NOUNS: Words = ("word", "thing", "item", "name", "option")
"""What the words of `mixed` are called."""
_SYLLABLES = _split({"": "ba ce di fo gu ka le mi no pu ra se ti vo lan mer tin dos bur kel"})[""]
INVENTED = 0.2
"""The share of invented words among mixed ones."""


def mixed(size: int, rng: Random) -> Words:
    """Words of all categories for training, and invented ones: a player has to read which ones there are."""
    known = {word.casefold(): word for words in TRAINING.values() for word in words}
    every = list(known.values())
    drawn: dict[str, str] = {}
    while len(drawn) < size:
        word = _invented(rng) if rng.random() < INVENTED else rng.choice(every)
        drawn[word.casefold()] = word
    return tuple(drawn.values())


def _invented(rng: Random) -> str:
    return "".join(rng.choices(_SYLLABLES, k=rng.choice((2, 2, 3))))
