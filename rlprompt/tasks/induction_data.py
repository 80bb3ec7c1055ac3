"""Small facts with exactly one right answer each, to test an instruction on.

Written for this project and checked by hand. What has two good answers is left out: countries with
two capitals, plurals such as cactuses and cacti, past tenses such as learned and learnt. What a
rule makes is made by code. No answer depends on an article, a hyphen or a capital letter, which the
metric `exact_match` does not see.

>>> antonyms()[0]
('hot', 'cold')
>>> in_words(42_000)
'forty-two thousand'
"""

from __future__ import annotations

from collections.abc import Iterator

Fact = tuple[str, str]
"""What is asked, and the answer."""

# One direction only: old has two opposites, but new and young have one each.
_ANTONYMS = """
hot cold, up down, left right, in out, on off, north south, east west, day night, yes no,
true false, black white, male female, war peace, life death, alive dead, buy sell, push pull,
win lose, come go, remember forget, love hate, laugh cry, question answer,
always never, everything nothing, before after, above below, front back, first last, early late,
fast slow, rich poor, young old, tall short, thick thin, wide narrow, deep shallow, heavy light,
wet dry, full empty, clean dirty, soft hard, difficult easy, strong weak, high low,
smooth rough, success failure, profit loss, maximum minimum, plural singular, positive negative,
odd even, add subtract, multiply divide, import export, ancient modern,
absent present, ascend descend, borrow lend, cause effect, float sink, guilty innocent,
hero villain, ceiling floor, entrance exit, heaven hell, inside outside,
internal external, increase decrease, interior exterior, introvert extrovert,
optimist pessimist, victory defeat, vertical horizontal, wholesale retail, summer winter,
sunrise sunset, teach learn, top bottom, upstairs downstairs, urban rural, useful useless,
hopeful hopeless, careful careless, with without, include exclude, inhale exhale, input output,
uphill downhill, upward downward, forward backward, superior inferior, senior junior, major minor,
majority minority, public private, permanent temporary, rise fall, lead follow, lock unlock,
tie untie, pack unpack, dress undress, load unload, agree disagree, obey disobey,
connect disconnect, honest dishonest, loyal disloyal, legal illegal, logical illogical,
regular irregular, responsible irresponsible, relevant irrelevant, possible impossible,
perfect imperfect, mature immature, moral immoral, mortal immortal, patient impatient,
practical impractical, probable improbable, visible invisible, complete incomplete,
dependent independent, direct indirect, secure insecure, sufficient insufficient,
accurate inaccurate, certain uncertain, known unknown, able unable, fair unfair, lucky unlucky,
likely unlikely, usual unusual, employed unemployed, expected unexpected
"""

_PLURALS = """
child children, foot feet, tooth teeth, goose geese, mouse mice, man men, woman women, ox oxen,
louse lice, knife knives, wife wives, life lives, leaf leaves, loaf loaves, half halves,
calf calves, thief thieves, shelf shelves, wolf wolves, elf elves, crisis crises,
analysis analyses, thesis theses, oasis oases, basis bases, hypothesis hypotheses,
diagnosis diagnoses, parenthesis parentheses, phenomenon phenomena, criterion criteria,
bacterium bacteria, alumnus alumni, stimulus stimuli, policeman policemen, fireman firemen,
grandchild grandchildren, sheep sheep, species species, series series, aircraft aircraft,
potato potatoes, tomato tomatoes, hero heroes, echo echoes, veto vetoes, torpedo torpedoes,
photo photos, piano pianos, radio radios, video videos, studio studios, kangaroo kangaroos,
city cities, baby babies, lady ladies, party parties, story stories, country countries,
family families, berry berries, cherry cherries, army armies, enemy enemies, fly flies, spy spies,
key keys, monkey monkeys, boy boys, toy toys, day days, donkey donkeys, valley valleys, box boxes,
fox foxes, glass glasses, dress dresses, class classes, church churches, watch watches,
match matches, bench benches, dish dishes, brush brushes, wish wishes, quiz quizzes, tax taxes,
kiss kisses, boss bosses, peach peaches, witch witches, cat cats, dog dogs, book books, car cars,
house houses, tree trees, horse horses, river rivers, window windows, table tables, chair chairs,
teacher teachers, apple apples, garden gardens, lamp lamps, cup cups, bird birds, ship ships,
road roads, bridge bridges, mountain mountains, song songs, letter letters, picture pictures,
chief chiefs, cliff cliffs, belief beliefs, giraffe giraffes
"""

_PAST_TENSES = """
begin began, become became, bite bit, blow blew, break broke, bring brought, build built,
buy bought, catch caught, choose chose, come came, cut cut, deal dealt, dig dug, do did, draw drew,
drink drank, drive drove, eat ate, fall fell, feed fed, feel felt, fight fought, find found,
fly flew, forget forgot, forgive forgave, freeze froze, get got, give gave, go went, grow grew,
have had, hear heard, hide hid, hit hit, hold held, hurt hurt, keep kept, know knew, lead led,
leave left, lend lent, let let, lose lost, make made, mean meant, meet met, pay paid, put put,
ride rode, rise rose, run ran, say said, see saw, seek sought, sell sold, send sent, set set,
shake shook, shoot shot, shut shut, sing sang, sit sat, sleep slept, slide slid, speak spoke,
spend spent, spread spread, stand stood, steal stole, stick stuck, sting stung, strike struck,
swear swore, sweep swept, swim swam, swing swung, take took, teach taught, tear tore, tell told,
think thought, throw threw, understand understood, wear wore, weep wept, win won, write wrote,
bend bent, bleed bled, breed bred, creep crept, cling clung, fling flung, flee fled, arise arose,
withdraw withdrew, overcome overcame, undo undid, mistake mistook, spin spun, walk walked,
play played, stop stopped, try tried, carry carried, study studied, plan planned, dance danced,
love loved, hope hoped, ask asked, jump jumped, open opened, close closed, help helped,
want wanted, need needed, visit visited, listen listened, cook cooked, paint painted, talk talked,
look looked, call called, climb climbed, laugh laughed, smile smiled, move moved, use used,
change changed, arrive arrived, hurry hurried, marry married, cry cried, drop dropped, hug hugged,
rob robbed, beg begged, clap clapped, admit admitted, prefer preferred, occur occurred
"""

_CAPITALS = """
Afghanistan: Kabul, Albania: Tirana, Algeria: Algiers, Angola: Luanda, Argentina: Buenos Aires,
Armenia: Yerevan, Australia: Canberra, Austria: Vienna, Azerbaijan: Baku, Bahamas: Nassau,
Bahrain: Manama, Bangladesh: Dhaka, Barbados: Bridgetown, Belarus: Minsk, Belgium: Brussels,
Belize: Belmopan, Bhutan: Thimphu, Bosnia and Herzegovina: Sarajevo, Botswana: Gaborone,
Bulgaria: Sofia, Burkina Faso: Ouagadougou, Cambodia: Phnom Penh, Canada: Ottawa,
Cape Verde: Praia, Central African Republic: Bangui, Chile: Santiago, China: Beijing,
Comoros: Moroni, Croatia: Zagreb, Cuba: Havana, Cyprus: Nicosia, Czech Republic: Prague,
Democratic Republic of the Congo: Kinshasa, Denmark: Copenhagen, Dominica: Roseau,
Dominican Republic: Santo Domingo, Ecuador: Quito, Egypt: Cairo, El Salvador: San Salvador,
Eritrea: Asmara, Estonia: Tallinn, Ethiopia: Addis Ababa, Fiji: Suva, Finland: Helsinki,
France: Paris, Gabon: Libreville, Gambia: Banjul, Georgia: Tbilisi, Germany: Berlin, Ghana: Accra,
Greece: Athens, Guatemala: Guatemala City, Guinea: Conakry, Guinea-Bissau: Bissau,
Guyana: Georgetown, Hungary: Budapest, Iceland: Reykjavik, India: New Delhi, Iran: Tehran,
Iraq: Baghdad, Ireland: Dublin, Italy: Rome, Jamaica: Kingston, Japan: Tokyo, Jordan: Amman,
Kenya: Nairobi, Kuwait: Kuwait City, Kyrgyzstan: Bishkek, Laos: Vientiane, Latvia: Riga,
Lebanon: Beirut, Lesotho: Maseru, Liberia: Monrovia, Libya: Tripoli, Liechtenstein: Vaduz,
Lithuania: Vilnius, Madagascar: Antananarivo, Malawi: Lilongwe, Mali: Bamako, Malta: Valletta,
Mauritania: Nouakchott, Mauritius: Port Louis, Mexico: Mexico City, Micronesia: Palikir,
Morocco: Rabat, Mozambique: Maputo, Namibia: Windhoek, Nepal: Kathmandu, Netherlands: Amsterdam,
New Zealand: Wellington, Nicaragua: Managua, Niger: Niamey, Nigeria: Abuja,
North Korea: Pyongyang, North Macedonia: Skopje, Norway: Oslo, Oman: Muscat, Pakistan: Islamabad,
Panama: Panama City, Papua New Guinea: Port Moresby, Peru: Lima, Philippines: Manila,
Poland: Warsaw, Portugal: Lisbon, Qatar: Doha, Republic of the Congo: Brazzaville,
Romania: Bucharest, Russia: Moscow, Rwanda: Kigali, Saint Lucia: Castries, Samoa: Apia,
Saudi Arabia: Riyadh, Senegal: Dakar, Serbia: Belgrade, Seychelles: Victoria,
Sierra Leone: Freetown, Slovakia: Bratislava, Slovenia: Ljubljana, Solomon Islands: Honiara,
Somalia: Mogadishu, South Korea: Seoul, South Sudan: Juba, Spain: Madrid, Sudan: Khartoum,
Suriname: Paramaribo, Sweden: Stockholm, Syria: Damascus, Tajikistan: Dushanbe, Thailand: Bangkok,
Trinidad and Tobago: Port of Spain, Tunisia: Tunis, Turkey: Ankara, Uganda: Kampala,
United Arab Emirates: Abu Dhabi, United Kingdom: London, Uruguay: Montevideo,
Uzbekistan: Tashkent, Vanuatu: Port Vila, Venezuela: Caracas, Vietnam: Hanoi, Zambia: Lusaka,
Zimbabwe: Harare
"""

_WORDS = """
able apple army baby bank bath bear bell bird blood blue board boat body bone book bottle bowl box
boy brain bread bridge bright brother brown brush cake camera card castle cat chair cheese chicken
child church circle city clean clock cloth cloud coat coffee cold colour cool copper cotton cow
cross cup dance dark desk dinner dog door dress drink dust earth east egg engine evening eye face
family farm father field finger fire fish flight floor flower food foot forest fork fox friend
front fruit garden gift glass glove gold green group guest half hall hammer hand heart hill honey
horse hotel house hunger ice ink iron island jelly jewel job judge juice key king kitchen knee
knife lamp leaf left leg letter library light lion lip list lock low machine map market meal milk
mirror money moon morning mother mouth music nail neck needle nerve night north nose number ocean
office oil onion oven owner paint paper park pencil people person picture pig pin plant pocket
poem pot potato power price prince queen quick rabbit rain red rest rice ring river road room
root rule salt school ship shirt shoe silver sister skin sky sleep smile smoke snow soap song soup
spoon spring star stick stone street summer sun supper table tail temple thumb ticket tiger tooth
town train tree trip uncle valley voice wall war watch water week wheel wind window wine winter
wolf wood word work world yellow young zero
"""

# Typical mass of a grown animal, kg. Only animals that differ `MASS_RATIO` times are compared, so
# that breeds and single animals do not matter.
MASS_RATIO = 5.0
_MASSES = {
    "ant": 5e-6,
    "bee": 1e-4,
    "mouse": 0.02,
    "sparrow": 0.03,
    "rat": 0.3,
    "pigeon": 0.35,
    "squirrel": 0.4,
    "hedgehog": 0.8,
    "rabbit": 2.0,
    "chicken": 2.5,
    "cat": 4.5,
    "fox": 7.0,
    "goose": 5.0,
    "beaver": 20.0,
    "wolf": 40.0,
    "goat": 50.0,
    "sheep": 70.0,
    "ostrich": 110.0,
    "gorilla": 150.0,
    "lion": 180.0,
    "tiger": 200.0,
    "donkey": 200.0,
    "horse": 500.0,
    "cow": 700.0,
    "bison": 800.0,
    "rhinoceros": 2000.0,
    "elephant": 5000.0,
    "blue whale": 1e5,
}

_UNITS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def antonyms() -> list[Fact]:
    """Words and their opposites."""
    return list(_facts(_ANTONYMS, " "))


def plurals() -> list[Fact]:
    """Nouns in the singular and the plural."""
    return list(_facts(_PLURALS, " "))


def past_tenses() -> list[Fact]:
    """Verbs and their simple past, 102 of them irregular."""
    return list(_facts(_PAST_TENSES, " "))


def capitals() -> list[Fact]:
    """Countries and their capitals, as of 2026."""
    return list(_facts(_CAPITALS, ": "))


def words() -> list[str]:
    """Common words to take apart, without one-letter words."""
    return _WORDS.split()


def number_words() -> list[Fact]:
    """Numbers in digits and in words, of those that everybody writes the same way.

    That is 0 to 99, and round hundreds and thousands: 101 is with or without an "and".
    """
    numbers = [*range(100), *range(100, 1000, 100), *range(1000, 100_000, 1000)]
    return [(str(number), in_words(number)) for number in numbers]


def in_words(number: int) -> str:
    """A number in words: below 100, or a round hundred or thousand below 100,000.

    Raises:
        ValueError: It is another number.
    """
    if 0 <= number < 20:
        return _UNITS.split()[number]
    if 20 <= number < 100:
        tens, unit = _TENS.split()[number // 10 - 2], number % 10
        return f"{tens}-{in_words(unit)}" if unit else tens
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number % size == 0 and 0 < number // size < (100 if size == 1000 else 10):
            return f"{in_words(number // size)} {name}"
    raise ValueError(f"{number} is neither below 100 nor a round hundred or thousand below 100,000")


def animal_pairs() -> list[Fact]:
    """Two animals, each pair in one order, and the larger of the two."""
    ranked = sorted(_MASSES.items(), key=lambda item: item[1])
    return [
        (_in_turn(small, large, ", ", i + j), large)
        for i, (small, mass) in enumerate(ranked)
        for j, (large, more) in enumerate(ranked)
        if more >= MASS_RATIO * mass
    ]


def sums() -> list[Fact]:
    """Two numbers from 0 to 99, each pair in one order, and their sum: 297 of the 5,050."""
    pairs = [(a, b) for a in range(100) for b in range(a, 100)]
    return [
        (_in_turn(str(a), str(b), " + ", i), str(a + b)) for i, (a, b) in enumerate(pairs[::17])
    ]


def _in_turn(first: str, second: str, between: str, turn: int) -> str:
    """The two, swapped in every second turn, so that places tell nothing."""
    return between.join((second, first) if turn % 2 else (first, second))


def _facts(table: str, separator: str) -> Iterator[Fact]:
    for entry in " ".join(table.split()).split(", "):
        question, _, answer = entry.partition(separator)
        yield question, answer
