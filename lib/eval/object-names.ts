// What the miniature world's drawings are called: the names that an answer about one of its scenes may wrongly hold.

/** In the order of the alphabet. */
export const objectNames: readonly string[] = `
abacus, airplane, alarm clock, alien, ambulance, anchor, angry face, ant, apple, arrow, avocado, axe, baby, baby
bottle, backpack, bacon, badminton, bagel, baguette, balloon, banana, baseball, basket, basketball, bat, bathtub,
battery, bear, beaver, bed, bee, beer, bell, bicycle, blowfish, blueberry, bomb, bone, book, boot, bouquet, bow,
bowling, boxing glove, brain, bread, broccoli, broom, bucket, burrito, bus, butter, butterfly, cactus, cake,
calendar, camel, camera, candle, candy, cap, car, carrot, castle, cat, caterpillar, chair, champagne, cheese,
cherries, cherry blossom, chick, chicken leg, chocolate, christmas tree, church, cloud, clover, clown, cocktail,
coconut, coffee, cola, compact disc, compass, computer, cookie, corn, couch, cow, crab, cricket, crocodile,
croissant, crown, crying face, cucumber, cupcake, deer, diamond, dice, dinosaur, dog, dolphin, door, doughnut, dove,
dragon, dress, drum, duck, eagle, ear, egg, eggplant, elephant, envelope, eye, factory, feather, ferris wheel, fire,
fire engine, fire extinguisher, fish, fishing pole, flamingo, flashlight, floppy disk, flying saucer, football,
fountain, fox, french fries, fried egg, frog, garlic, gear, ghost, gift, giraffe, glasses, globe, gloves, goat,
goggles, gorilla, grapes, guitar, hamburger, hammer, hamster, hand, handbag, hat, headphones, heart, hedgehog,
helicopter, helmet, hen, high heel, hippopotamus, honey, horse, hospital, hot dog, hourglass, house, ice cream,
island, jeans, kangaroo, key, keyboard, kite, kiwi, knife, koala, ladder, ladybug, lantern, laptop, lemon, lettuce,
light bulb, lightning, lion, lipstick, lizard, llama, lobster, lock, lollipop, magnet, magnifying glass, man, mango,
maple leaf, meat, medal, melon, mermaid, microphone, microscope, milk, mirror, money bag, monkey, moon, mosque,
motorcycle, mountain, mouse, mushroom, necktie, newspaper, noodles, nose, oak tree, octopus, ogre, olive, onion,
orange, otter, owl, paintbrush, palette, palm tree, pancake, panda, parachute, parrot, peach, peacock, peanut, pear,
pencil, penguin, pepper, phone, piano, pickaxe, pie, pig, pine tree, pineapple, pistol, pizza, plug, polar bear,
police car, police officer, popcorn, potato, pretzel, pumpkin, puzzle, rabbit, raccoon, racing car, rainbow,
rhinoceros, ribbon, rice, ring, robot, rocket, roller coaster, rooster, rose, ruler, sailboat, salad, sandwich,
santa claus, satellite, saw, saxophone, scarf, scissors, scooter, scorpion, screwdriver, seal, seashell, shark,
sheep, shield, ship, shirt, shoe, shopping cart, shower, shrimp, skateboard, skull, sloth, smiling face, snail,
snake, sneaker, snowflake, snowman, soap, soccer ball, socks, spaghetti, speedboat, spider, spider web, spoon,
squid, squirrel, star, strawberry, suitcase, sun, sunflower, sunglasses, sushi, swan, swimsuit, syringe, taco, taxi,
tea, teapot, teddy bear, telephone, telescope, television, tennis ball, tent, ticket, tiger, toilet, tomato, tongue,
tooth, toothbrush, top hat, tornado, tower, tractor, traffic light, train, trophy, tropical fish, truck, trumpet,
tulip, turkey, turtle, tyrannosaur, umbrella, unicorn, video game, violin, volcano, volleyball, waffle, watch, water
drop, watermelon, wave, whale, wheel, wine, wolf, woman, wrench, yarn, zebra, zombie`
  .split(',')
  .map((name) => name.trim().replace(/\s+/g, ' '));
