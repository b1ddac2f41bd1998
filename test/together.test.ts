// The same picture, prompt and seed give the same tokens: alone or among many, on any level and number of threads, from a cold cache
// or a warm one. One level sees pictures in its own way, AMX: the model's picture side has float weights, its language model none.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  addon,
  packageRoot,
  type NativeGenerateRequest,
  type NativeImage,
  type NativeLoadOptions,
  type NativeModel,
  type NativeModelInfo,
  type NativePromptPart,
} from '../lib/addon.js';
import { readPicture } from '../lib/image.js';
import { embeddedModelPath } from '../lib/model.js';
import { floatProducts } from './models.js';

const test = suite('together');

const questions = [
  'Describe this image in detail.',
  'What is the largest object in the image?',
  'What colour is the background?',
  'Tell me a story about it.',
];
const pictures = ['models/example.jpg', 'test/fixtures/tiny-llama2/images/scene.png'];

async function load(
  options: Pick<NativeLoadOptions, 'threads' | 'cpuLevel' | 'cacheLength' | 'kvType'> = {},
): Promise<NativeModel> {
  return addon.loadModel({ model: embeddedModelPath, contextLength: 512, ...options });
}

/** The level that a model computes on. */
const levelOf = (model: NativeModel): string => /^cpu ([^,]+),/.exec(model.info().device)![1]!;

async function encode(model: NativeModel, picture: string): Promise<NativeImage> {
  const { data, width, height } = await readPicture(await readFile(join(packageRoot, picture)));
  return model.encodeImage(data, width, height);
}

function prompt(image: NativeImage, question: string): NativePromptPart[] {
  return [{ token: '<s>' }, 'Look at this.###Human: <Img>', image, `</Img> ${question}###Assistant: `];
}

function request(parts: NativePromptPart[], seed: number): NativeGenerateRequest {
  return {
    prompt: parts,
    maxTokens: 24,
    temperature: 1.2,
    topK: 50,
    topP: 0.95,
    minP: 0,
    repetitionPenalty: 1.05,
    seed,
    stop: ['###'],
    stopIds: [2],
  };
}

/** Every question without a picture, one after the other in fresh sequences. */
async function ofWordsAlone(model: NativeModel): Promise<string[]> {
  const answers: string[] = [];
  for (const [seed, question] of questions.entries()) {
    const sequence = model.openSequence();
    const parts: NativePromptPart[] = [{ token: '<s>' }, `###Human: ${question}###Assistant: `];
    answers.push(String(Array.from((await sequence.generate(request(parts, seed), () => {})).ids)));
    sequence.close();
  }
  return answers;
}

/** Every question about every picture with its own seed, one after the other in fresh sequences. */
async function alone(model: NativeModel): Promise<string[]> {
  const answers: string[] = [];
  for (const picture of pictures) {
    const image = await encode(model, picture);
    for (const [seed, question] of questions.entries()) {
      const sequence = model.openSequence();
      answers.push(String(Array.from((await sequence.generate(request(prompt(image, question), seed), () => {})).ids)));
      sequence.close();
    }
  }
  return answers;
}

let model: NativeModel;
let expected: string[];
let expectedOfWords: string[];
/** By floatProducts. */
const expectedOf: Partial<Record<string, string[]>> = {};

test.before(async () => {
  model = await load();
  expected = await alone(model);
  assert.ok(new Set(expected).size > questions.length, 'the answers differ among themselves');
  expectedOfWords = await ofWordsAlone(model);
  expectedOf[floatProducts(levelOf(model))] = expected;
});
test.after(() => model.close());

/** Every question about every picture, all at once. */
async function together(many: NativeModel): Promise<string[]> {
  const running: Promise<string>[] = [];
  for (const picture of pictures) {
    const image = await encode(many, picture);
    for (const [seed, question] of questions.entries()) {
      running.push(
        many
          .openSequence()
          .generate(request(prompt(image, question), seed), () => {})
          .then(({ ids }) => String(Array.from(ids))),
      );
    }
  }
  return Promise.all(running);
}

test('among eight chats at once each answer is what it is alone', async () => {
  const many = await load({ cacheLength: 8 * 512 });
  assert.equal(await together(many), expected);
  await many.close();
});

test('a cache of 8-bit keys and values takes about half the memory and keeps that promise at every level', async () => {
  const cacheBytes = ({ memory }: NativeModelInfo) => memory.find(({ owner }) => owner.startsWith('kv cache'))!.bytes;
  const first: typeof expectedOf = {};
  for (const cpuLevel of addon.cpuLevels()) {
    const narrow = await load({ cpuLevel, kvType: 'q8_0', cacheLength: 8 * 512 });
    const wide = await load({ cpuLevel, cacheLength: 8 * 512 });
    const ratio = cacheBytes(narrow.info()) / cacheBytes(wide.info());
    await wide.close();
    assert.ok(ratio > 0.5 && ratio < 0.57, `${ratio} of the bytes: a code and a 32nd of a scale for 2 bytes`);
    const answers = await together(narrow);
    assert.equal(answers, await alone(narrow));
    assert.equal(answers, (first[floatProducts(cpuLevel)] ??= answers), cpuLevel);
    await narrow.close();
  }
});

test('with a cache that holds one chat the others wait and answer the same', async () => {
  const narrow = await load({ cacheLength: 512 });
  const image = await encode(narrow, pictures[0]!);
  const answers = await Promise.all(
    questions.map((question, seed) => narrow.openSequence().generate(request(prompt(image, question), seed), () => {})),
  );
  assert.equal(
    answers.map(({ ids }) => String(Array.from(ids))),
    expected.slice(0, questions.length),
  );
  await narrow.close();
});

for (const level of addon.cpuLevels()) {
  test(`level ${level} gives the same tokens`, async () => {
    const other = await load({ cpuLevel: level });
    assert.equal(await ofWordsAlone(other), expectedOfWords);
    const answers = await alone(other);
    assert.equal(answers, (expectedOf[floatProducts(level)] ??= answers));
    await other.close();
  });
}

for (const threads of [1, 3]) {
  test(`${threads} threads give the same tokens`, async () => {
    const other = await load({ threads });
    assert.equal(await alone(other), expected);
    await other.close();
  });
}

test("a chat's next turn continues in the cache and answers as if computed anew", async () => {
  const image = await encode(model, pictures[0]!);
  const first = prompt(image, questions[0]!);
  const sequence = model.openSequence();
  const answer = await sequence.generate(request(first, 1), () => {});
  const turn = (text: string): NativePromptPart[] => [
    ...first.slice(0, -1),
    `${first.at(-1) as string}${text}###Human: And the background?###Assistant: `,
  ];
  const warm = await sequence.generate(request(turn(answer.text), 2), () => {});
  assert.ok(
    warm.cachedTokens > answer.promptTokens / 2,
    `${warm.cachedTokens} of ${warm.promptTokens} tokens came from the cache`,
  );
  const narrow = await load(); // another model: nothing of this can be shared there
  const cold = await narrow.openSequence().generate(request(turn(answer.text), 2), () => {});
  assert.is(cold.cachedTokens, 0);
  assert.equal(Array.from(warm.ids), Array.from(cold.ids));
  sequence.close();
  await narrow.close();
});

test('conversations that begin alike share what they begin with', async () => {
  const image = await encode(model, pictures[1]!);
  const one = model.openSequence();
  await one.generate(request(prompt(image, questions[0]!), 0), () => {});
  const other = model.openSequence();
  const again = await encode(model, pictures[1]!); // encoded again: equal values, another object
  const { cachedTokens, ids } = await other.generate(request(prompt(again, questions[1]!), 1), () => {});
  assert.ok(cachedTokens >= 16 && cachedTokens % 16 === 0, `${cachedTokens} tokens, whole pages`);
  assert.is(String(Array.from(ids)), expected[questions.length + 1]);
  one.close();
  other.close();
});

test('a prompt beyond the context is an error that names both lengths, and the sequence lives on', async () => {
  const sequence = model.openSequence();
  await sequence
    .generate(request([{ ids: new Int32Array(513).fill(5) }], 0), () => {})
    .then(
      () => assert.unreachable(),
      (error: { code: string; message: string }) => {
        assert.is(error.code, 'ERR_CONTEXT_FULL');
        assert.match(error.message, /513 .*512/);
      },
    );
  const { finishReason, ids } = await sequence.generate(
    { ...request([{ ids: new Int32Array(500).fill(5) }], 0), maxTokens: 100, stop: [], stopIds: [] },
    () => {},
  );
  assert.is(finishReason, 'context');
  assert.is(ids.length, 13); // 12 more positions, and the token after the last
  sequence.close();
});

test.run();
