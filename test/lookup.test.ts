// Lookup decoding: an answer whose tokens are guessed from what was said before is the answer that single steps give.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  addon,
  packageRoot,
  type NativeGenerateRequest,
  type NativeGenerateResult,
  type NativeImage,
  type NativeModel,
  type NativePromptPart,
  type NativeSequence,
} from '../lib/addon.js';
import { readPicture } from '../lib/image.js';
import { embeddedModelPath } from '../lib/model.js';
import { withModel, type Options } from './device-models.js';
import { rejects } from './rejects.js';

const test = suite('lookup');

const questions = [
  'Describe this image in detail.',
  'Take a look at this image and describe what you notice.',
  'Please provide a detailed description of the picture.',
];
const stop = ['###'];
const opening = { model: embeddedModelPath, contextLength: 512 };

async function encode(from: NativeModel): Promise<NativeImage> {
  const { data, width, height } = await readPicture(await readFile(join(packageRoot, 'models/example.jpg')));
  return from.encodeImage(data, width, height);
}

function request(prompt: NativePromptPart[], changes: Partial<NativeGenerateRequest> = {}): NativeGenerateRequest {
  return {
    prompt,
    maxTokens: 60,
    temperature: 0,
    topK: 50,
    topP: 0.95,
    minP: 0,
    repetitionPenalty: 1,
    seed: 1,
    stop,
    stopIds: [2],
    ...changes,
  };
}

/** What an answer is, without times and without what lookup did. */
function essence(result: NativeGenerateResult) {
  const { text, ids, finishReason, promptTokens, cachedTokens, imageTokens } = result;
  return { text, ids: Array.from(ids), finishReason, promptTokens, cachedTokens, imageTokens };
}

const count = (results: NativeGenerateResult[], of: 'guessedTokens' | 'acceptedTokens') =>
  results.reduce((sum, result) => sum + result[of], 0);

const first = (image: NativeImage): NativePromptPart[] => [
  { token: '<s>' },
  'Look at this.###Human: <Img>',
  image,
  `</Img> ${questions[0]}###Assistant: `,
];
/** The conversation's next turn, after an answer whose words a description will say again. */
const next = (prompt: NativePromptPart[], answer: string, question: string): NativePromptPart[] => [
  ...prompt.slice(0, -1),
  `${prompt.at(-1) as string}${answer}###Human: ${question}###Assistant: `,
];

/** A picture described three times in one conversation. */
async function converse(from: NativeModel, image: NativeImage, changes: Partial<NativeGenerateRequest>) {
  const sequence = from.openSequence();
  const results: NativeGenerateResult[] = [];
  let prompt = first(image);
  for (const question of [...questions.slice(1), undefined]) {
    const result = await sequence.generate(request(prompt, changes), () => {});
    results.push(result);
    if (question !== undefined) prompt = next(prompt, result.text, question);
  }
  sequence.close();
  return results;
}

/** Rewards what was said already, so that the answer goes round and round until it is ended. */
const endless = { temperature: 0.3, repetitionPenalty: 0.5, maxTokens: 1000, stop: [], stopIds: [] };

let model: NativeModel;
let image: NativeImage;
/** The second turn's prompt, and the answer that single steps give to it. */
let second: NativePromptPart[];
let expected: NativeGenerateResult;

test.before(async () => {
  model = await addon.loadModel(opening);
  image = await encode(model);
  const plain = await converse(model, image, {});
  second = next(first(image), plain[0]!.text, questions[1]!);
  expected = plain[1]!;
  assert.ok(expected.ids.length > 12, `an answer to learn from: ${expected.text}`);
});
test.after(() => model.close());

/** The second turn in a sequence of its own. */
async function ask(
  changes: Partial<NativeGenerateRequest>,
  from = model,
  prompt = second,
): Promise<NativeGenerateResult> {
  const sequence = from.openSequence();
  try {
    return await sequence.generate(request(prompt, changes), () => {});
  } finally {
    sequence.close();
  }
}

test('greedy answers are the same, however many tokens are guessed', async () => {
  const plain = await converse(model, image, {});
  assert.is(count(plain, 'guessedTokens'), 0);
  let wrong = 0;
  for (const lookup of [1, 2, 5, 16]) {
    const found = await converse(model, image, { lookup });
    assert.equal(found.map(essence), plain.map(essence));
    const [guessed, accepted] = [count(found, 'guessedTokens'), count(found, 'acceptedTokens')];
    assert.ok(accepted > 10, `${accepted} of ${guessed} accepted with lookup ${lookup}`);
    wrong += guessed - accepted;
  }
  assert.ok(wrong > 0, 'some guesses were wrong');
});

test('sampled answers with the same seed are the same, whatever is drawn by', async () => {
  for (const changes of [
    { temperature: 0.7 },
    { temperature: 1, repetitionPenalty: 1.05 },
    { temperature: 0.5, repetitionPenalty: 1.4, topK: 0, topP: 1 },
    { temperature: 1, repetitionPenalty: 0.8, topK: 5 },
    { temperature: 0, repetitionPenalty: 1.2 },
    { temperature: 0, repetitionPenalty: 0.9 },
  ]) {
    const plain: NativeGenerateResult[] = [];
    const found: NativeGenerateResult[] = [];
    for (let seed = 0; seed < 6; seed++) {
      plain.push(...(await converse(model, image, { ...changes, seed })));
      found.push(...(await converse(model, image, { ...changes, seed, lookup: 8 })));
    }
    assert.equal(found.map(essence), plain.map(essence));
    const [guessed, accepted] = [count(found, 'guessedTokens'), count(found, 'acceptedTokens')];
    assert.ok(
      accepted > 10 && guessed > accepted,
      `${accepted} of ${guessed} accepted with ${JSON.stringify(changes)}`,
    );
  }
});

test('chats with lookup and without it, beside each other and beside prompts, answer as alone', async () => {
  const wishes = Array.from({ length: 8 }, (_, i) => ({
    lookup: [0, 16, 3, 8][i % 4]!,
    seed: i,
    temperature: i < 4 ? 0 : 0.6,
    repetitionPenalty: i % 2 ? 1.1 : 1,
  }));
  const alone: ReturnType<typeof essence>[][] = [];
  for (const wish of wishes) alone.push((await converse(model, image, { ...wish, lookup: 0 })).map(essence));
  await withModel({ ...opening, cacheLength: wishes.length * 512 }, async (many) => {
    const theirs = await encode(many);
    const found = await Promise.all(wishes.map((wish) => converse(many, theirs, wish)));
    // what they share of the cache depends on who came first
    const said = (turns: { ids: ArrayLike<number>; text: string; finishReason: string }[]) =>
      turns.map(({ ids, text, finishReason }) => ({ ids: Array.from(ids), text, finishReason }));
    assert.equal(found.map(said), alone.map(said));
    assert.ok(count(found.flat(), 'acceptedTokens') > 10);
  });
});

test('levels and numbers of threads do not change which guesses are right', async () => {
  // no picture: that side of the model has float weights, which AMX multiplies in its own way
  const words = second.filter((part) => part !== image);
  const here = await ask({ lookup: 6 }, model, words);
  assert.ok(here.acceptedTokens > 0);
  const others: Options[] = [...addon.cpuLevels().map((cpuLevel) => ({ cpuLevel })), { threads: 1 }, { threads: 3 }];
  for (const other of others) {
    await withModel({ ...opening, ...other }, async (from) => {
      const found = await ask({ lookup: 6 }, from, words);
      assert.equal({ ...essence(found), cachedTokens: 0 }, { ...essence(here), cachedTokens: 0 });
      assert.is(found.acceptedTokens, here.acceptedTokens);
    });
  }
});

test('an answer ends in the middle of right guesses where it ends without them, and leaves the same cache', async () => {
  const ids = Array.from(expected.ids);
  const ends: Partial<NativeGenerateRequest>[] = ids.map((_, i) => ({ maxTokens: i + 1 }));
  ends.push(...ids.map((id) => ({ stopIds: [id] })));
  for (const words of expected.text.matchAll(/\w+ \w/g)) ends.push({ stop: [words[0]] });
  let accepted = 0;
  for (const end of ends) {
    const turns = [];
    for (const lookup of [0, 7]) {
      const sequence = model.openSequence();
      const result = await sequence.generate(request(second, { ...end, lookup }), () => {});
      // what the next turn finds in this sequence's cache is what it holds: all but the last token
      const goes = [...second, { ids: result.ids }, 'And?###Assistant: '];
      const after = await sequence.generate(request(goes, { maxTokens: 4, stop: [] }), () => {});
      sequence.close();
      turns.push([essence(result), essence(after)]);
      assert.is(after.cachedTokens, after.promptTokens - 1 - model.encode('And?###Assistant: ').length);
      accepted += result.acceptedTokens;
    }
    assert.equal(turns[1], turns[0], JSON.stringify(end));
  }
  assert.ok(accepted > ends.length, `${accepted} accepted`);
});

test('the context ends an answer at the same token, also where guesses go up to it', async () => {
  const prompt = [{ token: '<s>' }, 'One two three four. '.repeat(20)];
  const sequence = model.openSequence();
  const length = (await sequence.generate(request(prompt, { maxTokens: 1 }), () => {})).promptTokens;
  sequence.close();
  let [guessed, accepted] = [0, 0];
  for (let room = 1; room <= 24; room++) {
    const contextLength = length + room;
    await withModel({ model: embeddedModelPath, contextLength, cacheLength: 2 * contextLength }, async (small) => {
      const found = [];
      for (const lookup of [0, 16]) {
        const only = small.openSequence();
        found.push(await only.generate(request(prompt, { ...endless, lookup }), () => {}));
        only.close();
      }
      assert.equal(found.map(essence)[1], found.map(essence)[0]);
      assert.is(found[0]!.finishReason, 'context');
      assert.is(found[0]!.ids.length, room + 1);
      // the first context in which the answer is long enough to be guessed has one position for that
      if (guessed === 0 && found[1]!.guessedTokens > 0) assert.is(found[1]!.guessedTokens, 1);
      guessed += found[1]!.guessedTokens;
      accepted += found[1]!.acceptedTokens;
    });
  }
  assert.ok(accepted > 40, `${accepted} accepted`);
});

test('neither the last token nor what would follow it is guessed', async () => {
  for (let maxTokens = 1; ; maxTokens++) {
    const { guessedTokens } = await ask({ maxTokens, lookup: 16 });
    if (guessedTokens === 0) continue;
    // the shortest answer with guesses has room for one of them, though more are known
    assert.is(guessedTokens, 1);
    assert.ok((await ask({ maxTokens: maxTokens + 3, lookup: 16 })).guessedTokens > 1);
    break;
  }
});

test('in a full cache guesses give way to what other conversations have there', async () => {
  const page = 16;
  const pages = (positions: number) => Math.ceil(positions / page);
  const idle = [{ token: '<s>' }, 'One two three four. '.repeat(20)];
  const sizes = await (async () => {
    const sequence = model.openSequence();
    const { promptTokens } = await sequence.generate(request(idle, { maxTokens: 1 }), () => {});
    sequence.close();
    return [promptTokens, expected.promptTokens + expected.ids.length - 1].map(pages);
  })();
  // exactly what an idle conversation holds and what the answer takes in the end
  const cacheLength = page * (sizes[0]! + sizes[1]!);
  for (const lookup of [0, 16]) {
    await withModel({ model: embeddedModelPath, contextLength: cacheLength }, async (full) => {
      const theirs = await encode(full);
      const sleeper = full.openSequence();
      await sleeper.generate(request(idle, { maxTokens: 1 }), () => {});
      const prompt = second.map((part) => (part === image ? theirs : part));
      const found = await full.openSequence().generate(request(prompt, { lookup }), () => {});
      assert.equal(Array.from(found.ids), Array.from(expected.ids));
      const { cachedTokens, promptTokens } = await sleeper.generate(request(idle, { maxTokens: 1 }), () => {});
      assert.is(cachedTokens, promptTokens - 1);
      if (lookup > 0) assert.ok(found.acceptedTokens > 0);
    });
  }
});

test('what was guessed wrong is not in the pages that another conversation takes over', async () => {
  // one that draws wildly while its guesses follow the first description: many are wrong
  const wild = { lookup: 16, temperature: 1.6, repetitionPenalty: 1.3, seed: 5, maxTokens: 120, stop: [], stopIds: [] };
  const plain = await ask({ ...wild, lookup: 0 });
  const fresh = await addon.loadModel(opening); // where nothing can be shared
  const theirs = await encode(fresh);
  const sequence = model.openSequence();
  const found = await sequence.generate(request(second, wild), () => {});
  assert.equal(Array.from(found.ids), Array.from(plain.ids));
  assert.ok(found.guessedTokens - found.acceptedTokens > 10, `${found.acceptedTokens} of ${found.guessedTokens}`);
  const goes = (picture: NativeImage): NativePromptPart[] => [
    ...second.map((part) => (part === image ? picture : part)),
    { ids: plain.ids },
    'And?###Assistant: ',
  ];
  const other = model.openSequence();
  const shared = await other.generate(request(goes(image)), () => {});
  const cold = await fresh.openSequence().generate(request(goes(theirs)), () => {});
  assert.ok(shared.cachedTokens >= shared.promptTokens - 32, `${shared.cachedTokens} of ${shared.promptTokens}`);
  assert.is(cold.cachedTokens, 0);
  assert.equal(Array.from(shared.ids), Array.from(cold.ids));
  other.close();
  sequence.close();
  await fresh.close();
});

test('while one conversation guesses, another takes its beginning over', async () => {
  const alone = await ask({ maxTokens: 40, stop: [], stopIds: [] });
  await withModel({ ...opening, cacheLength: 2048 }, async (from) => {
    const theirs = await encode(from);
    const prompt = second.map((part) => (part === image ? theirs : part));
    const wish = { maxTokens: 40, stop: [], stopIds: [], lookup: 16 };
    const others: Promise<NativeGenerateResult>[] = [];
    const begin = (sequence: NativeSequence) => sequence.generate(request(prompt, wish), () => {});
    const leader = from.openSequence();
    const led = await leader.generate(request(prompt, wish), () => {
      if (others.length < 3) others.push(begin(from.openSequence()));
    });
    assert.is(others.length, 3);
    for (const { ids } of [led, ...(await Promise.all(others))]) assert.equal(Array.from(ids), Array.from(alone.ids));
  });
});

test('an answer that is aborted while it guesses ends, and the conversation goes on', async () => {
  const sequence = model.openSequence();
  const wish = { lookup: 16, maxTokens: 300, stop: [], stopIds: [], temperature: 0.8 };
  const running = sequence.generate(request(second, wish), () => sequence.abort());
  await rejects('ERR_ABORTED', running);
  const again = await sequence.generate(request(second, { lookup: 16 }), () => {});
  assert.equal(Array.from(again.ids), Array.from(expected.ids));
  sequence.close();
});

test('a number of guesses that cannot be is refused', async () => {
  for (const lookup of [-1, 17, 1.5, Number.NaN]) {
    const { message } = await rejects('ERR_ARGUMENT', ask({ lookup }));
    assert.match(message, /lookup: expected an integer from 0 to 16/);
  }
});

test.run();
