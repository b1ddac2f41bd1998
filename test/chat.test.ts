// Conversations against a language model that writes what the test says: what is sent, what is kept, and what a failure leaves.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { NativeGenerateRequest, NativeGenerateResult, NativeImage, NativeSequence } from '../lib/addon.js';
import { Chat } from '../lib/chat.js';
import { MiniGptError } from '../lib/errors.js';
import type { ChatModel } from '../lib/model.js';
import type { ChatOptions } from '../lib/options.js';
import { templateOf } from '../lib/prompt.js';
import { Run } from '../lib/run.js';
import { rejects } from './rejects.js';

const chat = suite('chat');

/** A sequence that answers each prompt with the next of `script`: pieces of text, or an error; 'hang' waits for abort. */
class ScriptedSequence implements NativeSequence {
  requests: NativeGenerateRequest[] = [];
  closed = false;
  running = false;
  #abort: (() => void) | undefined;

  constructor(readonly script: (string[] | Error | 'hang')[]) {}

  async generate(
    request: NativeGenerateRequest,
    onText: (text: string, ids: Int32Array) => void,
  ): Promise<NativeGenerateResult> {
    assert.not.ok(this.running, 'one run at a time');
    this.requests.push(request);
    this.running = true;
    try {
      const next = this.script.shift() ?? ['nothing left to say'];
      await new Promise((resume) => setTimeout(resume, 1));
      if (next instanceof Error) throw next;
      if (next === 'hang') {
        onText(' Half an', Int32Array.of(1));
        await new Promise<void>((_, reject) => {
          this.#abort = () => setTimeout(() => reject(new MiniGptError('ERR_ABORTED', 'aborted')), 5);
        });
      }
      const pieces = next as string[];
      for (const piece of pieces) onText(piece, Int32Array.of(7));
      return {
        text: pieces.join(''),
        ids: new Int32Array(pieces.length).fill(7),
        finishReason: 'stop',
        promptTokens: 50,
        cachedTokens: 10,
        imageTokens: 32,
        guessedTokens: 6,
        acceptedTokens: 1,
        prefillMs: 1,
        decodeMs: 2,
        firstTokenMs: 1,
      };
    } finally {
      this.running = false;
      this.#abort = undefined;
    }
  }
  abort(): void {
    this.#abort?.();
  }
  close(): void {
    this.closed = true;
    this.abort();
  }
}

function setUp(...script: (string[] | Error | 'hang')[]) {
  const sequences: ScriptedSequence[] = [];
  const picture = (): NativeImage => ({ tokens: 32, encodeMs: 5, toFloat32Array: () => new Float32Array() });
  const model: ChatModel = {
    eos: 2,
    encodePicture: async (given, signal) => {
      await new Promise((resume) => setTimeout(resume, 5));
      if (signal.aborted) throw new MiniGptError('ERR_ABORTED', 'aborted');
      if (given === 'bad.jpg') throw new MiniGptError('ERR_IMAGE', 'bad');
      return picture();
    },
    openSequence: () => {
      sequences.push(new ScriptedSequence(script));
      return sequences.at(-1)!;
    },
  };
  return { sequences, open: (options: ChatOptions = {}) => new Chat(model, templateOf('vicuna0'), options) };
}

chat('every turn sends the whole conversation', async () => {
  const { sequences, open } = setUp([' A', ' dog. '], ['Brown.']);
  const talk = open();
  await talk.image('a.jpg');
  assert.equal(talk.history, [{ role: 'user', text: '', image: true }]);
  const run = talk.ask('What is it?');
  const pieces: string[] = [];
  for await (const piece of run) pieces.push(piece);
  const answer = await run;
  assert.is(answer.text, 'A dog.');
  assert.is(pieces.join(''), 'A dog.');
  assert.equal(answer.ids, [7, 7]);
  assert.equal(answer.usage, {
    promptTokens: 50,
    imageTokens: 32,
    completionTokens: 2,
    cachedTokens: 10,
    guessedTokens: 6,
    acceptedTokens: 1,
  });
  assert.is(answer.timings.encodeMs, 5);
  assert.ok(answer.timings.totalMs >= 1);
  const second = await talk.ask('What colour?');
  assert.is(second.timings.encodeMs, 0, 'the picture was encoded for the first turn');
  assert.equal(talk.history, [
    { role: 'user', text: 'What is it?', image: true },
    { role: 'assistant', text: 'A dog.', image: false },
    { role: 'user', text: 'What colour?', image: false },
    { role: 'assistant', text: 'Brown.', image: false },
  ]);
  assert.is(sequences.length, 1, 'one sequence serves the conversation');
  const prompts = sequences[0]!.requests.map(({ prompt }) => prompt);
  assert.equal(prompts[1]!.slice(0, 3), prompts[0]!.slice(0, 3), 'the second prompt begins as the first');
  assert.is(prompts[1]!.at(-1), '</Img> What is it?###Assistant: A dog.###Human: What colour?###Assistant: ');
});

chat("defaults are the original's; greedy turns the penalty off", async () => {
  const { sequences, open } = setUp();
  const talk = open({ maxTokens: 20, stop: 'END' });
  await talk.ask('a');
  await talk.ask('b', { temperature: 0, maxTokens: 5 });
  await talk.ask('c', { temperature: 0, repetitionPenalty: 1.2, seed: 9, stop: ['x', 'y'], lookup: 4 });
  const [a, b, c] = sequences[0]!.requests.map(({ prompt: _, ...rest }) => rest);
  assert.ok(Number.isSafeInteger(a!.seed));
  assert.equal(
    { ...a, seed: 0 },
    {
      maxTokens: 20,
      lookup: 0,
      temperature: 1,
      topK: 50,
      topP: 0.9,
      minP: 0,
      repetitionPenalty: 1.05,
      seed: 0,
      stop: ['###', 'END'],
      stopIds: [2],
    },
  );
  assert.equal([b!.temperature, b!.repetitionPenalty, b!.maxTokens], [0, 1, 5]);
  assert.equal([c!.repetitionPenalty, c!.seed, c!.stop, c!.lookup], [1.2, 9, ['###', 'x', 'y'], 4]);
});

chat('a failed or aborted turn leaves the conversation as it was', async () => {
  const { sequences, open } = setUp(['One.'], new MiniGptError('ERR_CONTEXT_FULL', 'full'), 'hang', 'hang', ['Two.']);
  const talk = open();
  await talk.image('a.jpg');
  await talk.ask('First?');
  const before = talk.history;
  await rejects('ERR_CONTEXT_FULL', talk.ask('Too much?'));
  assert.equal(talk.history, before);

  const stop = new AbortController();
  const aborted = talk.ask('Aborted?', { signal: stop.signal });
  setTimeout(() => stop.abort(), 5);
  const error = await rejects('ERR_ABORTED', aborted);
  assert.ok(error.cause, "the signal's reason is the cause");
  assert.equal(talk.history, before);

  for await (const piece of talk.ask('Left?')) {
    assert.is(piece, 'Half an');
    break;
  }
  await rejects('ERR_ARGUMENT', talk.ask('Too soon?')); // the one left is still ending
  await new Promise((resume) => setTimeout(resume, 20));
  assert.equal(talk.history, before);

  await rejects('ERR_IMAGE', talk.image('bad.jpg'));
  await rejects('ERR_ARGUMENT', talk.ask('  '));
  await rejects('ERR_ARGUMENT', talk.ask(undefined as never));
  await rejects('ERR_ARGUMENT', talk.ask('x', { tempreature: 1 } as never));
  await rejects('ERR_ABORTED', talk.ask('x', { signal: AbortSignal.abort() }));
  await rejects('ERR_ABORTED', talk.image('a.jpg', { signal: AbortSignal.abort() }));
  assert.equal(talk.history, before);
  assert.is((await talk.ask('Second?')).text, 'Two.');
  assert.equal(
    talk.history.map(({ text }) => text),
    ['First?', 'One.', 'Second?', 'Two.'],
  );
  assert.is(sequences.length, 1);
});

chat('one thing at a time', async () => {
  const { open } = setUp(['One.'], ['Two.']);
  const talk = open();
  const first = talk.ask('First?');
  assert.match((await rejects('ERR_ARGUMENT', talk.ask('Second?'))).message, /an answer is still coming/);
  await rejects('ERR_ARGUMENT', talk.image('a.jpg'));
  assert.is((await first).text, 'One.');
  const picture = talk.image('a.jpg');
  assert.match((await rejects('ERR_ARGUMENT', talk.ask('Now?'))).message, /a picture is being read/);
  await picture;
  assert.is((await talk.ask('Second?')).text, 'Two.');
});

chat('restart forgets, and ends what is at work', async () => {
  const { sequences, open } = setUp(['One.'], 'hang', ['Fresh.']);
  const talk = open();
  await talk.image('a.jpg');
  await talk.ask('First?');
  const lost = talk.ask('Lost?');
  const fails = rejects('ERR_ABORTED', lost);
  await new Promise((resume) => setTimeout(resume, 5));
  talk.restart();
  assert.equal(talk.history, []);
  assert.is((await talk.ask('Again?')).text, 'Fresh.');
  await fails;
  assert.equal(
    talk.history.map(({ text }) => text),
    ['Again?', 'Fresh.'],
  );
  assert.ok(sequences[0]!.closed && !sequences[1]!.closed);
  const picture = rejects('ERR_ABORTED', talk.image('a.jpg'));
  talk.restart();
  await picture;
  assert.equal(talk.history, []);
});

chat('a closed chat says so', async () => {
  const { sequences, open } = setUp('hang');
  const talk = open();
  const ended = rejects('ERR_ABORTED', talk.ask('What?'));
  await new Promise((resume) => setTimeout(resume, 5));
  talk.close();
  talk.close();
  await ended;
  assert.ok(sequences[0]!.closed);
  await rejects('ERR_CLOSED', talk.ask('And now?'));
  await rejects('ERR_CLOSED', talk.image('a.jpg'));
  assert.throws(() => talk.restart(), /closed/);
});

const run = suite('run');

run('fails in silence when nobody listens, and aloud when somebody does', async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => unhandled.push(reason);
  process.on('unhandledRejection', note);
  const failing = new Run(async (emit) => {
    emit('a');
    throw new Error('broken');
  });
  await new Promise((resume) => setTimeout(resume, 20));
  process.off('unhandledRejection', note);
  assert.equal(unhandled, []);
  await rejects('ERR_INTERNAL', failing);
  await rejects(
    'ERR_INTERNAL',
    failing.catch((error: unknown) => {
      throw error;
    }),
  );
  const seen: string[] = [];
  await rejects(
    'ERR_INTERNAL',
    (async () => {
      for await (const piece of failing) seen.push(piece);
    })(),
  );
  assert.equal(seen, ['a'], 'the pieces before the failure are seen');
});

run('every loop sees every piece, before and after the end', async () => {
  const working = new Run(async (emit) => {
    for (const piece of ['a', '', 'b', 'c']) {
      emit(piece);
      await new Promise((resume) => setTimeout(resume, 1));
    }
    return 3;
  });
  const collect = async () => {
    const pieces: string[] = [];
    for await (const piece of working) pieces.push(piece);
    return pieces.join('|');
  };
  assert.equal(await Promise.all([collect(), collect()]), ['a|b|c', 'a|b|c']);
  assert.is(await working, 3);
  assert.is(await collect(), 'a|b|c');
  assert.is(await working.finally(() => {}), 3);
  assert.instance(working.then(), Promise);
});

run('leaving the loop aborts; leaving it at the end does not', async () => {
  let aborted = false;
  const endless = new Run(async (emit, signal) => {
    emit('a');
    await new Promise<void>((resume) => signal.addEventListener('abort', () => resume()));
    aborted = true;
    throw new MiniGptError('ERR_ABORTED', 'aborted');
  });
  for await (const _ of endless) break;
  await rejects('ERR_ABORTED', endless);
  assert.ok(aborted);
  endless.abort(); // harmless
});

run('an aborted signal rejects at once and starts nothing', async () => {
  let started = false;
  await rejects(
    'ERR_ABORTED',
    new Run(async () => {
      started = true;
    }, AbortSignal.abort()),
  );
  assert.not.ok(started);
});

chat.run();
run.run();
