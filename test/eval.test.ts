// How answers about scenes are judged, on scenes small enough to judge by eye; and a whole evaluation with a model of random words.
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { evaluateScenes } from '../lib/eval/evaluate-scenes.js';
import { objectNames } from '../lib/eval/object-names.js';
import { failureOf, nameFinder, repeatedRuns, scoreAnswer, summarise, type Scene } from '../lib/eval/scenes.js';
import { exportProjection } from '../lib/export.js';
import { minigpt4 } from './command.js';
import { tinyModel, type TinyModel } from './models.js';
import { rejects } from './rejects.js';

const test = suite('eval');
const found = (names: string[], text: string): string[] => [...nameFinder(names)(text)];

test('names are found as whole words, the longest where one holds another', () => {
  const names = ['bear', 'teddy bear', 'car', 'Santa Claus', 'orange'];
  assert.equal(found(names, 'A Teddy Bear and a car.'), ['teddy bear', 'car']);
  assert.equal(found(names, 'a bear, a teddy bear and a bear'), ['bear', 'teddy bear']);
  assert.equal(found(names, 'a carrot, a scar, an oscar'), []);
  assert.equal(found(names, 'santa claus!'), ['santa claus']);
  assert.equal(found(['a.b'], 'a.b and axb'), ['a.b']);
  assert.equal(found([], 'a car'), []);
});

test("the miniature world's names are whole and each stands once", () => {
  assert.is(new Set(objectNames).size, objectNames.length);
  for (const name of objectNames) assert.match(name, /^[a-z]+( [a-z]+)*$/);
  for (const name of ['abacus', 'water drop', 'zombie']) assert.ok(objectNames.includes(name), name);
});

test('an answer fails in the first way that holds', () => {
  const cases: [string, boolean, string | undefined][] = [
    ['The image shows a large saw.', true, undefined],
    ['A large saw', true, 'short'],
    ['a saw', false, 'short'],
    ['', true, 'short'],
    ['The image shows a large', false, 'unfinished'],
    ['the image shows a saw.', true, 'malformed'],
    ['The image shows a saw', true, 'malformed'],
    ['A b c d e f g. A b c d e f g. A b c d e f g.', true, 'repetitive'],
    ['A b c d e f g. A b c d e f g. A b c d e f g.', false, 'unfinished'],
  ];
  for (const [text, finished, expected] of cases) assert.is(failureOf(text, finished), expected, text);
});

test('three repeated runs are allowed, four are too many', () => {
  // runs of 'a b c d e f, a b c d e f': the first six words stand with a comma once, so two of its three runs come again
  assert.is(repeatedRuns('a b c d e f, a b c d e f'), 2);
  const three = 'A b c d e f x a b c d e f.';
  assert.is(repeatedRuns(`${three.slice(0, -1)} y`), 3);
  assert.is(failureOf('A b c d e f g x a b c d e f y.', true), undefined);
  assert.is(repeatedRuns('A b c d e f g x a b c d e f g y.'), 4);
  assert.is(failureOf('A b c d e f g x a b c d e f g y.', true), 'repetitive');
});

const scene = (style: string, main: string, others: string[], colour: string): Scene => ({
  file: 'x.jpg',
  style,
  main,
  objects: [main, ...others].map((name) => ({ name })),
  background: { colour },
});

test('a score counts main object, objects, inventions and the background', () => {
  const find = nameFinder(['saw', 'cocktail', 'speedboat', 'syringe', 'orange']);
  const answer = (text: string) => ({ text, finished: true });
  const first = scene('seen', 'saw', ['cocktail', 'speedboat'], 'white');
  assert.equal(
    scoreAnswer(
      first,
      answer('The image shows a large syringe, a syringe and a speedboat on a white background.'),
      find,
    ),
    {
      style: 'seen',
      mainNamed: false,
      objectsNamed: 1,
      objects: 3,
      wrongObjects: 1,
      backgroundNamed: true,
    },
  );
  const second = scene('held-out', 'orange', [], 'orange');
  const right = scoreAnswer(second, answer('An orange'), find);
  assert.equal([right.mainNamed, right.backgroundNamed, right.wrongObjects, right.failure], [true, true, 0, 'short']);
  // a colour inside another word is none
  assert.is(
    scoreAnswer(scene('seen', 'saw', [], 'red'), answer('A saw is covered here.'), find).backgroundNamed,
    false,
  );
});

test('a summary has a line a style, with shares of scenes and of objects', () => {
  const find = nameFinder(['saw', 'cup', 'hat']);
  const ask = (of: Scene, text: string) => scoreAnswer(of, { text, finished: true }, find);
  const lines = summarise([
    ask(scene('seen', 'saw', ['cup', 'hat'], 'red'), 'There is a saw and a cup on red.'),
    ask(scene('held-out', 'hat', [], 'red'), 'hat'),
    ask(scene('seen', 'hat', [], 'red'), 'There is a saw and a cup on blue.'),
  ]);
  assert.equal(lines, [
    {
      style: 'seen',
      scenes: 2,
      mainNamed: 0.5,
      objectsNamed: 0.5, // 2 of 4
      wrongObjectsPerScene: 1, // none and two
      backgroundNamed: 0.5,
      failed: 0,
      failures: {},
    },
    {
      style: 'held-out',
      scenes: 1,
      mainNamed: 1,
      objectsNamed: 1,
      wrongObjectsPerScene: 0,
      backgroundNamed: 0,
      failed: 1,
      failures: { short: 1 },
    },
  ]);
});

// ---------------------------------------------------------------- with a model

let tiny: TinyModel;
let world: string;

test.before(async () => {
  tiny = await tinyModel();
  process.env['TMPDIR'] = tiny.folder; // what lies in the system's folder for temporary files is then this test's alone
  world = join(tiny.folder, 'eval');
  mkdirSync(join(world, 'scenes'), { recursive: true });
  const scenes = ['seen', 'held-out', 'seen'].map((style, i) => {
    copyFileSync(tiny.picture, join(world, 'scenes', `${i}.png`));
    return { ...scene(style, 'saw', [], 'red'), file: `${i}.png`, more: 'what is not needed' };
  });
  writeFileSync(join(world, 'scenes.json'), JSON.stringify({ prompts: ['What is it?', 'And that?'], scenes }));
});
test.after(() => tiny.remove());

test('every projection is asked about every scene, and temporary files go', async () => {
  const pth = join(tiny.folder, 'trained.pth');
  await exportProjection({ checkpoint: tiny.path, format: 'pth', out: pth });
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('minigpt4-eval-'));
  const told: string[] = [];
  const results = await evaluateScenes({
    folder: world,
    model: tiny.path,
    projections: [pth],
    untrained: true,
    onProgress: (done, total, name) => told.push(`${done} ${total} ${name}`),
  });
  assert.equal(
    results.map(({ projection }) => projection),
    ['untrained', 'trained.pth'],
  );
  assert.is(told.length, 6);
  assert.is(told.at(-1), '6 6 trained.pth');
  for (const { summaries, answers } of results) {
    assert.equal(
      summaries.map(({ style, scenes }) => [style, scenes]),
      [
        ['seen', 2],
        ['held-out', 1],
      ],
    );
    assert.equal(
      answers.map(({ prompt }) => prompt),
      ['What is it?', 'And that?', 'What is it?'],
    );
  }
  // other image vectors, other words; the same projection and question, the same words
  assert.is.not(results[0]!.answers[0]!.text, results[1]!.answers[0]!.text);
  assert.is(results[1]!.answers[0]!.text, results[1]!.answers[2]!.text);
  const own = await evaluateScenes({ folder: world, model: tiny.path, limit: 1, only: 'seen' });
  assert.is(own.length, 1);
  assert.equal(
    own[0]!.answers.map(({ text }) => text),
    [results[1]!.answers[0]!.text],
  );
  assert.equal(
    readdirSync(tmpdir()).filter((name) => name.startsWith('minigpt4-eval-')),
    before,
  );
});

test('the command prints a table with a line for each projection and style', async () => {
  const words = ['eval', 'scenes', world, '--model', tiny.path, '--untrained', '--projection', tiny.path];
  const { code, stdout } = await minigpt4(words);
  assert.is(code, 0);
  const lines = stdout.trim().split('\n');
  const cells = lines.map((line) => line.split('|').map((cell) => cell.trim()));
  assert.equal(cells[0]!.slice(1, 5), ['projection', 'style', 'scenes', 'main object named']);
  assert.equal(
    cells.slice(2).map((row) => row.slice(1, 4)),
    [
      ['untrained', 'seen', '2'],
      ['untrained', 'held-out', '1'],
      ['tiny.gguf', 'seen', '2'],
      ['tiny.gguf', 'held-out', '1'],
    ],
  );
  assert.is(new Set(lines.map((line) => line.length)).size, 1); // the columns stand below each other
  assert.is((await minigpt4(['eval', 'scenes', world, '--limit', '0'])).code, 2);
});

test('a folder that is none, a style that is not there and an abort are told', async () => {
  await rejects('ERR_FILE_NOT_FOUND', evaluateScenes({ folder: tiny.folder, model: tiny.path }));
  const style = await rejects('ERR_ARGUMENT', evaluateScenes({ folder: world, model: tiny.path, only: 'sene' }));
  assert.match(style.message, 'seen, held-out');
  await rejects('ERR_ABORTED', evaluateScenes({ folder: world, model: tiny.path, signal: AbortSignal.abort() }));
  const wrong = join(tiny.folder, 'wrong');
  mkdirSync(wrong);
  writeFileSync(join(wrong, 'scenes.json'), JSON.stringify({ prompts: ['What?'], scenes: [{ file: '../x' }] }));
  const entry = await rejects('ERR_FILE_FORMAT', evaluateScenes({ folder: wrong, model: tiny.path }));
  assert.match(entry.message, 'scenes.0');
});

test.run();
