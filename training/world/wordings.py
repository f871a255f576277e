"""The words of the prompts, as data: synonyms of every attribute, verbs of every motion, and sentence patterns."""

# The first word of each is the grammar's own and is drawn more often than the others.
COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "bright red", "crimson", "scarlet"),
    "green": ("green", "bright green", "emerald"),
    "blue": ("blue", "bright blue", "royal blue"),
    "yellow": ("yellow", "bright yellow", "golden"),
    "orange": ("orange", "bright orange", "tangerine"),
    "purple": ("purple", "violet", "lilac"),
    "cyan": ("cyan", "turquoise", "aqua", "light blue"),
    "white": ("white", "snow-white", "bright white"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "ball", "disc", "disk", "dot", "sphere", "round shape"),
    "square": ("square", "box", "block", "cube", "square shape"),
    "triangle": ("triangle", "pyramid", "triangular shape", "triangle shape"),
    "star": ("star", "star shape", "five-pointed star", "pentagram"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "black": ("black", "pitch black", "dark"),
    "gray": ("gray", "grey"),
    "navy": ("navy", "navy blue", "dark blue"),
    "brown": ("brown", "dark brown", "chocolate"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny", "little"),
    "large": ("large", "big", "huge", "giant"),
}

# Words for what the world cannot show. The text encoder learns that they specify nothing, not the nearest thing.
UNKNOWN_COLORS = ("pink", "black", "gray", "brown", "silver", "navy", "transparent", "beige")
UNKNOWN_SHAPES = ("shape", "object", "thing", "hexagon", "cat", "car", "rectangle", "heart", "figure", "person", "dog")
UNKNOWN_BACKGROUNDS = (
    "white", "pink", "red", "green", "yellow", "plain", "blue", "orange", "colorful", "purple", "cyan",
)  # fmt: skip

# Verbs as (participle, third person).
Verb = tuple[str, str]
GO: tuple[Verb, ...] = (
    ("moving", "moves"),
    ("sliding", "slides"),
    ("going", "goes"),
    ("gliding", "glides"),
    ("drifting", "drifts"),
    ("travelling", "travels"),
    ("traveling", "travels"),
    ("heading", "heads"),
    ("flying", "flies"),
    ("floating", "floats"),
    ("shifting", "shifts"),
    ("rolling", "rolls"),
    ("running", "runs"),
    ("walking", "walks"),
    ("passing", "passes"),
)
WAYS: dict[str, tuple[str, ...]] = {
    "moving left": (
        "left", "to the left", "leftwards", "leftward", "towards the left", "toward the left", "from right to left",
        "right to left", "to the left side", "across the screen to the left", "from the right to the left",
        "from the right side to the left side",
    ),
    "moving right": (
        "right", "to the right", "rightwards", "rightward", "towards the right", "toward the right",
        "from left to right", "left to right", "to the right side", "across the screen to the right",
        "from the left to the right", "from the left side to the right side",
    ),
    "moving up": (
        "up", "upwards", "upward", "towards the top", "toward the top", "to the top", "from bottom to top",
        "bottom to top", "up the screen", "from the bottom to the top", "upwards across the screen",
    ),
    "moving down": (
        "down", "downwards", "downward", "towards the bottom", "toward the bottom", "to the bottom",
        "from top to bottom", "top to bottom", "down the screen", "from the top to the bottom",
        "downwards across the screen",
    ),
}  # fmt: skip
VERBS: dict[str, tuple[Verb, ...]] = {
    "moving up": (("rising", "rises"), ("ascending", "ascends"), ("climbing", "climbs")),
    "moving down": (("falling", "falls"), ("descending", "descends"), ("sinking", "sinks"), ("dropping", "drops")),
    "spinning": (
        ("spinning", "spins"),
        ("rotating", "rotates"),
        ("turning", "turns"),
        ("twirling", "twirls"),
        ("whirling", "whirls"),
        ("spinning around", "spins around"),
        ("turning around", "turns around"),
        ("spinning in place", "spins in place"),
        ("rotating in place", "rotates in place"),
        ("revolving", "revolves"),
        ("rotating clockwise", "rotates clockwise"),
    ),
    "growing": (
        ("growing", "grows"),
        ("getting bigger", "gets bigger"),
        ("getting larger", "gets larger"),
        ("expanding", "expands"),
        ("becoming bigger", "becomes bigger"),
        ("becoming larger", "becomes larger"),
        ("increasing in size", "increases in size"),
        ("growing in size", "grows in size"),
        ("growing larger", "grows larger"),
        ("enlarging", "enlarges"),
        ("inflating", "inflates"),
    ),
    "shrinking": (
        ("shrinking", "shrinks"),
        ("getting smaller", "gets smaller"),
        ("becoming smaller", "becomes smaller"),
        ("contracting", "contracts"),
        ("decreasing in size", "decreases in size"),
        ("shrinking in size", "shrinks in size"),
        ("growing smaller", "grows smaller"),
        ("dwindling", "dwindles"),
        ("deflating", "deflates"),
    ),
    "staying still": (
        ("staying still", "stays still"),
        ("standing still", "stands still"),
        ("not moving", "does not move"),
        ("stationary", "is stationary"),
        ("motionless", "is motionless"),
        ("static", "is static"),
        ("staying in place", "stays in place"),
        ("remaining still", "remains still"),
        ("resting", "rests"),
        ("holding still", "holds still"),
        ("sitting still", "sits still"),
        ("without moving", "doesn't move"),
        ("at rest", "is at rest"),
        ("standing", "stands"),
        ("still", "is still"),
    ),
}
# One-word participles that may stand before the noun: "a spinning red star".
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "moving left": ("left-moving", "leftward moving"),
    "moving right": ("right-moving", "rightward moving"),
    "moving up": ("rising", "ascending", "upward moving"),
    "moving down": ("falling", "descending", "downward moving"),
    "spinning": ("spinning", "rotating", "turning", "revolving"),
    "growing": ("growing", "expanding"),
    "shrinking": ("shrinking", "contracting"),
    "staying still": ("still", "static", "motionless", "stationary"),
}
# Nouns and bare words: "blue square, movement to the left".
MOTION_NOUNS: dict[str, tuple[str, ...]] = {
    "moving left": ("left", "movement to the left", "direction left", "move left"),
    "moving right": ("right", "movement to the right", "direction right", "move right"),
    "moving up": ("up", "movement to the top", "direction up", "move up"),
    "moving down": ("down", "movement to the bottom", "direction down", "move down"),
    "spinning": ("spin", "rotation", "rotate"),
    "growing": ("growth", "grow", "expand"),
    "shrinking": ("shrinkage", "shrink", "contract"),
    "staying still": ("no motion", "no movement", "stay still"),
}
MANNERS = ("slowly", "steadily", "quickly", "smoothly", "gently", "continuously")

# {subject} a red circle · {doing} moving right · {does} moves right · {noun} movement to the right
# {place} on a black background · {ground} black background · {back} black · {opening} a video of
PATTERNS = (
    "{subject} {doing} {place}",
    "{subject} {place} {doing}",
    "{place}, {subject} {doing}",
    "{place} {subject} {does}",
    "{subject} that {does} {place}",
    "{subject} which {does} {place}",
    "{subject} {does} {place}",
    "{subject} is {doing} {place}",
    "{subject}, {doing}, {ground}",
    "{subject} {doing}, {ground}",
    "{subject}, {noun}, {ground}",
    "{ground}, {subject} {doing}",
    "{doing}: {subject} {place}",
    "{subject} {place}, {doing}",
    "{subject} {place} that {does}",
    "{subject} {place}. it {does}",
    "{subject}. it is {doing}. the background is {back}",
    "the background is {back}. {subject} {does}",
    "{opening} {subject} {doing} {place}",
    "{opening} {subject} that {does} {place}",
    "{opening} {subject} {place}, {doing}",
    "{doing} {subject} {place}",
    "{subject} {ground} {noun}",
)
PATTERNS_WITHOUT_BACKGROUND = (
    "{subject} {doing}",
    "{subject} that {does}",
    "{subject} which {does}",
    "{subject} is {doing}",
    "{subject} {does}",
    "{subject}, {doing}",
    "{subject}, {noun}",
    "{doing} {subject}",
    "{opening} {subject} {doing}",
    "{subject}. it {does}",
)
PATTERNS_WITHOUT_MOTION = (
    "{subject} {place}",
    "{subject}, {ground}",
    "{place}, {subject}",
    "{opening} {subject} {place}",
)
PATTERNS_BARE = ("{subject}", "{opening} {subject}")
# Kept out of training, to measure whether the encoder reads the words or knows the sentences by heart.
HELD_OUT_PATTERNS = (
    "{doing}, {subject} {place}",
    "{opening} {subject}. the background is {back} and it {does}",
    "{ground}: {subject}, {noun}",
    "{place} there is {subject}, it {does}",
    "{subject} {place} and it is {doing}",
    "{subject}; {doing}; {ground}",
    "the {ground} shows {subject} {doing}",
    "watch {subject} as it {does} {place}",
)

SUBJECTS = (
    ("{size} {color} {shape}", 12),
    ("{shape} that is {color}", 0.5),
    ("{size} {shape} in {color}", 0.5),
    ("{size} {shape} colored {color}", 0.5),
    ("{size} {color} colored {shape}", 0.5),
    ("{color}, {size} {shape}", 0.5),
    ("{color} {size} {shape}", 0.5),
)
PLACES = (
    ("on a {back} background", 10),
    ("on {back}", 2),
    ("against a {back} background", 2),
    ("over a {back} background", 1),
    ("in front of a {back} background", 1),
    ("with a {back} background", 2),
    ("on a {back} backdrop", 1),
    ("on the {back} background", 1),
    ("against {back}", 1),
)
OPENINGS = (
    "a video of", "video of", "an animation of", "a clip of", "show me", "generate", "make", "draw", "please show",
    "animate", "a short film of", "there is", "i want", "create a video of", "we see", "a movie of", "footage of",
    "a scene with",
)  # fmt: skip
FILLERS = (
    "in a simple flat style", "high quality", "smooth animation", "4k", "minimalist", "vector art", "please", "simple",
    "digital art", "cartoon", "very nice", "with soft edges", "in the frame", "on the screen", "thank you", "2d",
    "for eight seconds", "beautiful", "geometric", "clean",
)  # fmt: skip
# Common words that say nothing about a scene.
OTHER_WORDS = (
    "the", "and", "of", "with", "a", "in", "is", "house", "tree", "water", "music", "people", "city", "night", "sea",
    "happy", "fast", "new", "old", "good", "day", "playing", "eating", "dancing", "dog", "horse", "river", "street",
    "sky", "mountain", "table", "book", "camera", "cinematic", "detailed", "two", "three", "several", "my", "your",
    "this", "some", "very", "while", "under", "near", "forest", "rain", "snow", "fire", "robot", "hello", "world",
    "test", "what", "time", "for", "through", "over", "wind", "space", "planet", "train", "child", "woman", "man",
)  # fmt: skip
