"""The key nouns of the retrieval tasks: common, short, concrete, each one token of the testbed tokenizer."""

_TEXT = """
acorn almond amber anchor apple apron arrow atlas badge balloon banjo barrel basket beacon beaver bench
berry bicycle biscuit blanket bottle bridge broom bucket butter button cabin cactus camel candle canoe
canyon captain carpet carrot castle cedar cello chapel cherry chimney cinnamon circus clover cobra coconut
comet compass copper coral cottage cotton cricket crystal curtain daisy desert diamond dolphin donkey
dragon drum eagle easel elbow ember engine falcon farmer feather fiddle forest fossil fountain fox garden
garlic ginger glacier glove goose granite grape guitar hammer harbor harvest hazel helmet heron honey
hotel island ivory jacket jaguar jasmine jungle kettle kitchen ladder lagoon lantern lemon leopard lily
lizard lobster magnet mango maple marble meadow melon mirror monkey mountain mushroom napkin needle nickel
nutmeg oasis ocean olive onion orchid organ otter owl oyster paddle palace panda parrot pasture peanut
pebble pelican pencil pepper piano pigeon pillow planet plum pony potato prairie prism pumpkin puzzle
quarry quartz rabbit raccoon radish ranger raven ribbon river robin rocket saddle salmon sandal sapphire
satin scarf shadow shelter silver spider spruce squirrel stable statue sunset swan tailor teapot temple
thistle thunder tiger timber tomato trumpet tulip tunnel turtle umbrella valley vase velvet village violet
violin walnut walrus whistle willow window winter wizard yarn zebra
"""
NOUNS: tuple[str, ...] = tuple(_TEXT.split())
