// The loaded model from TypeScript: the reference's ids, streaming, abort, options, several at once, and what is said when something is wrong.
import { copyFileSync, createReadStream, truncateSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MiniGPT4, MiniGptError, embeddedModelPath, type Answer, type DescribeOptions } from '../lib/index.js';
import { fixture, tinyModel } from './models.js';
import { rejects } from './rejects.js';

const tiny = await tinyModel();
const model = await MiniGPT4.load({ model: tiny.path, kvType: 'f32', threads: 2 });
const loaded = suite('model');
loaded.after(async () => {
  await model.close();
  tiny.remove();
});

const greedy: DescribeOptions = { temperature: 0, maxTokens: tiny.greedyIds.length };
// random weights, always taking the best token, repeat themselves and never end
const endless: DescribeOptions = { temperature: 0, maxTokens: 1500 };

loaded('describes as the reference does', async () => {
  const run = model.describe(tiny.picture, greedy);
  let text = '';
  for await (const piece of run) text += piece;
  const answer = await run;
  assert.equal(answer.ids, tiny.greedyIds);
  assert.is(answer.text, text);
  assert.is(answer.finishReason, 'length');
  const { chat } = JSON.parse(await readFile(fixture('expected.json'), 'utf8')) as {
    chat: { segment_ids: number[][]; greedy_text: string };
  };
  assert.is(answer.text, chat.greedy_text.trim());
  const words = chat.segment_ids.reduce((sum, ids) => sum + ids.length, 0);
  assert.equal(
    { ...answer.usage, cachedTokens: 0 },
    {
      promptTokens: words + 4,
      imageTokens: 4,
      completionTokens: tiny.greedyIds.length,
      cachedTokens: 0,
      guessedTokens: 0,
      acceptedTokens: 0,
    },
  );
  const { encodeMs, prefillMs, decodeMs, firstTokenMs, totalMs } = answer.timings;
  for (const time of [encodeMs, prefillMs, decodeMs, firstTokenMs, totalMs])
    assert.ok(time >= 0 && time < 60_000, `${time} ms`);
  assert.ok(firstTokenMs <= totalMs && encodeMs + prefillMs <= totalMs + 1, JSON.stringify(answer.timings));
});

loaded('tells what it is', () => {
  const { info } = model;
  assert.is(info.template, tiny.template);
  assert.is(info.imageSize, 56);
  assert.is(info.imageTokens, 4);
  assert.is(info.hasQformer, false);
  assert.equal([info.width, info.layers, info.heads, info.kvHeads, info.vocabulary], [256, 2, 2, 2, 512]);
  assert.is(info.embedded, false);
  assert.is(info.path, tiny.path);
  assert.ok(model.memory.reduce((sum, { bytes }) => sum + bytes, 0) > 1e6, JSON.stringify(model.memory));
});

loaded('its tokenizer', () => {
  const ids = model.encode('two dogs run on the beach near the water');
  assert.equal(ids, [260, 122, 114, 437, 106, 118, 364, 348, 373, 278, 367, 496, 452, 279, 278, 281, 271, 261]);
  assert.is(model.decode(ids), 'two dogs run on the beach near the water');
  assert.equal(model.encode('<s>', { specials: true }), [1]);
  assert.ok(model.encode('<s>').length > 1, "a user's <s> is text");
  assert.throws(
    () => model.decode([512]),
    (error: MiniGptError) => error.code === 'ERR_ARGUMENT' && /0 to 511, found 512/.test(error.message),
  );
  assert.throws(
    () => model.decode([1.5]),
    (error: MiniGptError) => error.code === 'ERR_ARGUMENT',
  );
  const wrong: (() => unknown)[] = [
    () => model.encode(7 as never),
    () => model.encode('x', null as never),
    () => model.encode('x', { specials: 1 } as never),
    () => model.decode(undefined as never),
    () => model.decode(null as never),
    () => model.decode('12' as never),
    () => model.decode({ length: 1e9 }),
    () => model.decode({ length: 2 }),
    () => model.decode({ length: -1 }),
  ];
  for (const act of wrong) {
    assert.throws(act, (error: unknown) => error instanceof MiniGptError && error.code === 'ERR_ARGUMENT', String(act));
  }
});

loaded('the same seed gives the same answer, other seeds others', async () => {
  const ask = (seed: number | bigint) => model.describe(tiny.picture, { seed, maxTokens: 12 });
  assert.is((await model.describe(tiny.picture, { seed: 2 ** 60, maxTokens: 1 })).seed, 2n ** 60n);
  const [a, b, c, big] = [await ask(1), await ask(1), await ask(2), await ask(2n ** 63n + 1n)];
  assert.equal(a.ids, b.ids);
  assert.not.equal(a.ids, c.ids);
  assert.not.equal(a.ids, big.ids);
  assert.is(big.seed, 2n ** 63n + 1n);
  const drawn = await model.describe(tiny.picture, { maxTokens: 12 });
  assert.equal((await ask(drawn.seed)).ids, drawn.ids, 'the seed that was drawn gives the answer again');
});

loaded('options reach the sampler: top-k of one is greedy, a penalty is not', async () => {
  assert.equal(
    (await model.describe(tiny.picture, { topK: 1, repetitionPenalty: 1, maxTokens: 8 })).ids,
    tiny.greedyIds.slice(0, 8),
  );
  const bent = await model.describe(tiny.picture, { ...greedy, repetitionPenalty: 3 });
  assert.is(new Set(bent.ids).size > new Set(tiny.greedyIds).size, true, 'a strong penalty repeats less');
});

loaded("stops before a text of the caller's, wherever tokens part", async () => {
  const { text } = await model.describe(tiny.picture, greedy);
  const at = 5;
  const stop = text.slice(at, at + 4);
  const answer = await model.describe(tiny.picture, { ...greedy, stop });
  assert.is(answer.finishReason, 'stop');
  assert.is(answer.text, text.slice(0, text.indexOf(stop)).trim());
  assert.ok(answer.ids.length < tiny.greedyIds.length);
});

loaded('other templates are other prompts', async () => {
  const other = await model.describe(tiny.picture, { ...greedy, template: 'llama2' });
  assert.not.equal(other.ids, tiny.greedyIds);
  await rejects('ERR_UNSUPPORTED', model.describe(tiny.picture, { template: 'minigpt-v2' as never }));
  await rejects('ERR_ARGUMENT', model.describe(tiny.picture, { template: 'llama3' as never }));
});

loaded('an abort takes effect within one token', async () => {
  const stop = new AbortController();
  let pieces = 0;
  const run = model.describe(tiny.picture, { ...endless, signal: stop.signal });
  const error = await rejects(
    'ERR_ABORTED',
    (async () => {
      for await (const _ of run) {
        if (++pieces === 3) stop.abort(new Error('enough'));
      }
    })(),
  );
  assert.is((error.cause as Error).message, 'enough');
  assert.ok(pieces <= 4, `${pieces} pieces`);
  await rejects('ERR_ABORTED', run);
  await rejects('ERR_ABORTED', model.describe(tiny.picture, { signal: AbortSignal.abort() }));
  await rejects('ERR_ABORTED', model.describe(tiny.picture, { ...endless, signal: AbortSignal.timeout(30) }));
  assert.equal((await model.describe(tiny.picture, greedy)).ids, tiny.greedyIds, 'the next one is not harmed');
});

loaded('a stream that fails fails the answer, whatever else is wrong', async () => {
  const stream = () => createReadStream(join(tiny.folder, 'missing.jpg'));
  await rejects('ERR_FILE_READ', model.describe(stream()));
  await rejects('ERR_ARGUMENT', model.describe(stream(), { topP: 2 }));
  await rejects('ERR_ABORTED', model.describe(stream(), { signal: AbortSignal.abort() }));
  const chat = model.chat();
  await rejects('ERR_FILE_READ', chat.image(stream()));
  await rejects('ERR_ARGUMENT', chat.image(stream(), null as never));
  await rejects('ERR_ARGUMENT', chat.image(stream(), { signal: 5 } as never));
  chat.close();
  await new Promise((resume) => setTimeout(resume, 50)); // an unheard error would end the process
});

loaded('a listener that throws fails the load', async () => {
  const failing = (model: string, thrown: unknown) => {
    let calls = 0;
    const loading = MiniGPT4.load({
      model,
      onProgress: () => {
        calls++;
        throw thrown;
      },
    });
    return loading.then(
      (): never => {
        throw new Error('expected the listener to fail the load');
      },
      (error: unknown) => ({ error, calls }),
    );
  };
  // the caller's own error, as it is
  for (const thrown of [new RangeError('the listener fails'), 'words alone', undefined])
    assert.equal(await failing(tiny.path, thrown), { error: thrown, calls: 1 });
  const own = new Error('mine');
  assert.is((await failing(tiny.path, own)).error, own);
});

loaded('closing twice awaits the same end', async () => {
  const other = await MiniGPT4.load({ model: tiny.path });
  const work = other.describe(tiny.picture, endless);
  for await (const _ of work) break;
  const again = other.describe(tiny.picture, endless);
  const ends: string[] = [];
  const first = other.close().then(() => ends.push('first'));
  const second = other.close().then(() => ends.push('second'));
  await second;
  assert.equal(ends, ['first', 'second']);
  await first;
  await rejects('ERR_CLOSED', again);
});

loaded('leaving the loop ends the work', async () => {
  const run = model.describe(tiny.picture, endless);
  for await (const _ of run) break;
  await rejects('ERR_ABORTED', run);
});

loaded('several at once answer as each alone', async () => {
  const pictures = ['scene.png', 'gray.png', 'small.png'].map((name) => fixture(`images/${name}`));
  const alone: Answer[] = [];
  for (const picture of pictures) alone.push(await model.describe(picture, greedy));
  const together = await Promise.all(pictures.map((picture) => model.describe(picture, greedy)));
  assert.equal(
    together.map(({ ids }) => ids),
    alone.map(({ ids }) => ids),
  );
});

loaded("a chat's turns see the picture and the turns before", async () => {
  const chat = model.chat({ temperature: 0, maxTokens: 10 });
  await chat.image(tiny.picture);
  const first = await chat.ask('Describe this image in detail.');
  assert.equal(first.ids, tiny.greedyIds.slice(0, 10));
  const second = await chat.ask('What else?');
  assert.ok(second.usage.promptTokens > first.usage.promptTokens);
  assert.is(second.usage.imageTokens, 4);
  // all but the prompt's last few tokens, which are others where the answer follows: both are tokenized as one text
  const { cachedTokens } = second.usage;
  assert.ok(cachedTokens >= first.usage.promptTokens - 4, `${cachedTokens} of ${first.usage.promptTokens}`);
  assert.is(second.timings.encodeMs, 0);

  // the cached beginning changes nothing
  const again = model.chat({ temperature: 0, maxTokens: 10 });
  await again.image(tiny.picture);
  await again.ask('Describe this image in detail.');
  await rejects('ERR_ABORTED', again.ask('Never mind.', { signal: AbortSignal.abort() }));
  const stop = new AbortController();
  const lost = again.ask('Something else entirely?', { maxTokens: 1000, signal: stop.signal });
  setTimeout(() => stop.abort(), 10);
  await rejects('ERR_ABORTED', lost);
  assert.equal((await again.ask('What else?')).ids, second.ids);
  chat.restart();
  assert.equal(chat.history, []);
  await chat.image(tiny.picture);
  assert.equal((await chat.ask('Describe this image in detail.')).ids, first.ids);
  chat.close();
  again.close();
  await rejects('ERR_CLOSED', chat.ask('Still there?'));
});

loaded('a prompt longer than the context says so, and the chat goes on', async () => {
  const chat = model.chat({ temperature: 0, maxTokens: 4 });
  await chat.ask('Hello');
  const before = chat.history;
  const error = await rejects('ERR_CONTEXT_FULL', chat.ask('word '.repeat(3000)));
  assert.match(error.message, /2048/);
  assert.equal(chat.history, before);
  assert.is((await chat.ask('Short')).ids.length, 4);
  chat.close();
});

loaded('an answer that fills the context ends there', async () => {
  const small = await MiniGPT4.load({ model: tiny.path, contextLength: 160 });
  const answer = await small.describe(tiny.picture, { temperature: 0, maxTokens: 500 });
  assert.is(answer.finishReason, 'context');
  assert.ok(answer.usage.promptTokens + answer.usage.completionTokens <= 161, JSON.stringify(answer.usage));
  await small.close();
});

loaded('bad pictures are errors and nothing else', async () => {
  const text = join(tiny.folder, 'text.jpg');
  writeFileSync(text, 'no picture');
  await rejects('ERR_IMAGE', model.describe(text));
  await rejects('ERR_FILE_NOT_FOUND', model.describe(join(tiny.folder, 'missing.jpg')));
  await rejects('ERR_ARGUMENT', model.describe(undefined as never));
  await rejects('ERR_ARGUMENT', model.describe(tiny.picture, { topP: 2 }));
  await rejects('ERR_ARGUMENT', model.describe(tiny.picture, { tempreature: 1 } as never));
  await rejects('ERR_ARGUMENT', model.describe(tiny.picture, null as never));
  const small = await MiniGPT4.load({ model: tiny.path, maxPixels: 1000 });
  await rejects('ERR_IMAGE', small.describe(tiny.picture));
  await small.close();
  assert.equal(
    (await model.describe({ data: new Uint8Array([9, 8, 7]), width: 1, height: 1, channels: 3 }, greedy)).ids.length,
    tiny.greedyIds.length,
  );
});

loaded('loads from a URL, tells its progress, and is closed for good', async () => {
  const fractions: number[] = [];
  const other = await MiniGPT4.load({
    model: pathToFileURL(tiny.path),
    onProgress: (fraction) => fractions.push(fraction),
    template: 'llama2',
  });
  assert.is(other.info.template, 'llama2');
  assert.ok(
    fractions.length > 0 && fractions.every((fraction, i) => fraction >= (fractions[i - 1] ?? 0) && fraction <= 1),
    String(fractions),
  );
  const chat = other.chat();
  const working = rejects('ERR_CLOSED', other.describe(tiny.picture, endless));
  await new Promise((resume) => setTimeout(resume, 100));
  await other.close();
  await working;
  await other.close();
  await rejects('ERR_CLOSED', other.describe(tiny.picture));
  await rejects('ERR_CLOSED', chat.ask('Still there?'));
  assert.throws(
    () => other.chat(),
    (error: MiniGptError) => error.code === 'ERR_CLOSED',
  );
  assert.throws(
    () => other.encode('a'),
    (error: MiniGptError) => error.code === 'ERR_CLOSED',
  );
  assert.throws(
    () => other.memory,
    (error: MiniGptError) => error.code === 'ERR_CLOSED',
  );
  assert.is(other.info.width, 256, 'what it was is still known');
});

loaded('wrong files and options are refused with a reason', async () => {
  await rejects('ERR_FILE_NOT_FOUND', MiniGPT4.load({ model: join(tiny.folder, 'missing.gguf') }));
  const text = join(tiny.folder, 'text.gguf');
  writeFileSync(text, 'no model at all');
  assert.match((await rejects('ERR_FILE_FORMAT', MiniGPT4.load({ model: text }))).message, /text\.gguf/);
  const cut = join(tiny.folder, 'cut.gguf');
  copyFileSync(tiny.path, cut);
  truncateSync(cut, 1_000_000);
  await rejects('ERR_FILE_FORMAT', MiniGPT4.load({ model: cut }));
  await rejects('ERR_ARGUMENT', MiniGPT4.load({ modle: tiny.path } as never));
  await rejects('ERR_ARGUMENT', MiniGPT4.load({ model: 7 } as never));
  const wish = MiniGPT4.load({ model: tiny.path, device: 'cpu', visionDevice: 'gpu' });
  assert.match((await rejects('ERR_ARGUMENT', wish)).message, /visionDevice is 'gpu', but device is 'cpu'/);
  await rejects('ERR_ARGUMENT', MiniGPT4.load({ model: 'file://elsewhere/a.gguf' }));
  await rejects('ERR_UNSUPPORTED', MiniGPT4.load({ model: tiny.path, template: 'minigpt-v2' as never }));
  await rejects('ERR_NO_BACKEND', MiniGPT4.load({ model: tiny.path, device: 'cuda' }));
});

loaded('the environment names another default model', async () => {
  process.env['MINIGPT4_MODEL'] = tiny.path;
  try {
    const other = await MiniGPT4.load();
    assert.is(other.info.path, tiny.path);
    await other.close();
  } finally {
    delete process.env['MINIGPT4_MODEL'];
  }
});

loaded('the embedded miniature describes a scene of pictograms', async () => {
  const small = await MiniGPT4.load();
  assert.is(small.info.path, embeddedModelPath);
  assert.ok(small.info.embedded);
  const run = small.describe(new URL('../models/example.jpg', import.meta.url), { temperature: 0 });
  const answer = await run;
  assert.match(answer.text, /^The image shows .*\.$/);
  assert.is(answer.finishReason, 'stop');
  assert.not.match(answer.text, /#/);
  await small.close();
});

loaded.run();
