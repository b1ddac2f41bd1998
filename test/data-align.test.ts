// Stage-2 data from the embedded model and a local stand-in for the refining server: what is asked and recorded, patience, resuming, filters.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
  appendFileSync,
} from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  align,
  alignPrompt,
  refineInstruction,
  type AlignOptions,
  type AlignResult,
  type AlignSummary,
} from '../lib/data/align.js';
import { judge, leastCharacters } from '../lib/data/align-filters.js';
import { Refiner, RefusedError } from '../lib/data/align-refine.js';
import { readCcSbuAlign } from '../lib/data/cc-sbu-align.js';
import { doctor } from '../lib/data/doctor.js';
import { MiniGPT4, embeddedModelPath } from '../lib/model.js';
import { minigpt4, script } from './command.js';
import { fixture } from './models.js';
import { rejects } from './rejects.js';

const tests = suite('data align');
const folder = mkdtempSync(join(tmpdir(), 'minigpt4-align-'));
const model = await MiniGPT4.load({ model: embeddedModelPath });
tests.after(async () => {
  await model.close();
  rmSync(folder, { recursive: true, force: true });
});

// ---------------------------------------------------------------- the stand-in

interface Asked {
  path: string;
  authorization: string | undefined;
  body: { model: string; messages: { role: string; content: string }[]; temperature: number; max_tokens: number };
  at: number;
}
type Answer = (response: ServerResponse, asked: Asked, number: number) => void;

interface StandIn {
  url: string;
  asked: Asked[];
  close(): Promise<void>;
}

async function standIn(answer: Answer): Promise<StandIn> {
  const asked: Asked[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as Asked['body'];
      const one = { path: request.url!, authorization: request.headers.authorization, body, at: Date.now() };
      asked.push(one);
      answer(response, one, asked.length);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    asked,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

function say(response: ServerResponse, text: unknown, finish = 'stop'): void {
  response.setHeader('content-type', 'application/json');
  response.end(
    JSON.stringify({
      model: 'stand-in-1',
      choices: [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: finish }],
    }),
  );
}
const fail = (response: ServerResponse, status: number, message: string, headers: Record<string, string> = {}) => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ error: { message } }));
};
/** Long enough to be kept. */
const good = (text: string) => `A refined description, with all its details in order: ${text}`;
const echo: Answer = (response, { body }) => say(response, good(body.messages[1]!.content));

async function served<Value>(answer: Answer, work: (server: StandIn) => Promise<Value>): Promise<Value> {
  const server = await standIn(answer);
  try {
    return await work(server);
  } finally {
    await server.close();
  }
}

// ---------------------------------------------------------------- pictures

const pictures = join(folder, 'pictures');
mkdirSync(join(pictures, 'more'), { recursive: true });
const jpeg = (red: number) =>
  sharp({ create: { width: 64, height: 48, channels: 3, background: { r: red, g: 30, b: 200 } } })
    .jpeg()
    .toBuffer();
for (let i = 0; i < 6; i++) writeFileSync(join(pictures, `${i}.jpg`), await jpeg(i * 40));
writeFileSync(join(pictures, 'more', 'scene.png'), readFileSync(fixture('images/scene.png')));

let folders = 0;
const out = () => join(folder, `out-${folders++}`);

async function collect(
  options: Omit<AlignOptions, 'pictures'> & { pictures?: string },
): Promise<{ results: AlignResult[]; summary: AlignSummary }> {
  const run = align({ pictures, model, ...options });
  const results: AlignResult[] = [];
  for (;;) {
    const next = await run.next();
    if (next.done) return { results, summary: next.value };
    results.push(next.value);
  }
}
interface Line {
  step: string;
  id: string;
  text: string;
  tokens: number;
}
const record = (path: string) =>
  readFileSync(join(path, 'record.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
const captions = (path: string) =>
  (
    JSON.parse(readFileSync(join(path, 'filter_cap.json'), 'utf8')) as {
      annotations: { image_id: string; caption: string }[];
    }
  ).annotations;
const quick = { model: 'stand-in', wait: 0.01, longestWait: 0.02 };

// ---------------------------------------------------------------- the whole way

tests('described, continued, refined, kept: the layout that training reads', async () => {
  await served(echo, async ({ url, asked }) => {
    const path = out();
    const { results, summary } = await collect({ out: path, refine: { ...quick, url, key: 'sk-secret-word' } });
    assert.is(results.length, 7);
    assert.ok(results.every(({ outcome }) => outcome === 'kept'));
    assert.is(summary.kept, 7);
    assert.equal(summary.asked, { descriptions: 7, refinements: 7 });

    const first = asked[0]!;
    assert.is(first.path, '/v1/chat/completions');
    assert.is(first.authorization, 'Bearer sk-secret-word');
    assert.equal([first.body.model, first.body.temperature, first.body.max_tokens], ['stand-in', 0.7, 200]);
    assert.equal(
      first.body.messages.map(({ role }) => role),
      ['system', 'user'],
    );
    assert.is(first.body.messages[0]!.content, refineInstruction);

    const annotations = captions(path);
    assert.equal(
      annotations.map(({ image_id }) => image_id),
      ['0', '1', '2', '3', '4', '5', '6'],
    );
    for (const [i, result] of results.entries()) {
      assert.ok(result.outcome === 'kept');
      assert.is(annotations[i]!.caption, good(result.description));
    }
    // the files as they were, what is no JPEG made one
    assert.equal(readFileSync(join(path, 'image', '3.jpg')), readFileSync(join(pictures, '3.jpg')));
    assert.equal([...readFileSync(join(path, 'image', '6.jpg')).subarray(0, 3)], [0xff, 0xd8, 0xff]);
    const config = {
      name: 'x',
      format: 'cc_sbu_align',
      storage: path,
      batchSize: 1,
      sampleRatio: 1,
      shuffleBuffer: 0,
      holdout: 0,
    } as const;
    assert.is((await readCcSbuAlign(config)).length, 7);
    assert.is((await doctor({ path })).usable, 7);

    // the key went to the server and nowhere else
    for (const name of ['record.jsonl', 'filter_cap.json'])
      assert.not.match(readFileSync(join(path, name), 'utf8'), /secret/);
    assert.equal(readdirSync(path).sort(), ['filter_cap.json', 'image', 'record.jsonl']);
  });
});

tests('the paper’s words; a second turn up to the limit of tokens, and joined by one space', async () => {
  const greedy = { temperature: 0, refine: false as const };
  const some = join(folder, 'some.txt');
  writeFileSync(some, `${join(pictures, '0.jpg')}\n\npictures/more/scene.png\n`);
  const all = out();
  await collect({ ...greedy, pictures: some, out: all });
  const described = record(all).filter(({ step }) => step === 'describe');
  const chat = model.chat({ template: 'vicuna0-train', temperature: 0 });
  await chat.image(join(pictures, '0.jpg'));
  const one = await chat.ask(alignPrompt);
  const two = await chat.ask('Continue');
  chat.close();
  assert.is(described.find(({ id }) => id === '0')!.text, one.text);
  const continued = record(all).filter(({ step }) => step === 'continue');
  assert.is(continued.find(({ id }) => id === '0')!.text, two.text);
  const { results } = await collect({ ...greedy, pictures: some, out: all });
  assert.is((results[0] as { description: string }).description, `${one.text} ${two.text}`);

  // exactly at the limit a description goes on, one token below it does not
  const tokens = described.find(({ id }) => id === '0')!.tokens;
  assert.is(tokens, model.encode(one.text).length);
  const at = await collect({ ...greedy, pictures: join(pictures, '0.jpg'), out: out(), continueUpTo: tokens });
  const below = await collect({ ...greedy, pictures: join(pictures, '0.jpg'), out: out(), continueUpTo: tokens - 1 });
  assert.equal([at.summary.continued, below.summary.continued], [1, 0]);
});

tests('without a server it describes, records and says so; later the same record is refined', async () => {
  const path = out();
  const first = await collect({ out: path });
  assert.equal([first.summary.waiting, first.summary.kept, first.summary.captions], [7, 0, undefined]);
  assert.ok(first.results.every(({ outcome }) => outcome === 'described'));
  await served(echo, async ({ url }) => {
    const second = await collect({ out: path, refine: { ...quick, url } });
    assert.equal(second.summary.asked, { descriptions: 0, refinements: 7 });
    assert.is(second.summary.captions, 7);
  });
});

tests('the same seed draws the same pictures and words, another one others', async () => {
  const drawn = async (seed: number, count = 3) => {
    const { results } = await collect({ out: out(), refine: false, seed, count });
    return results.map((result) => [result.name, (result as { description: string }).description]);
  };
  const three = await drawn(1);
  assert.equal(await drawn(1), three);
  assert.not.equal(await drawn(2), three);
  const names = (list: (string | undefined)[][]) => list.map(([name]) => name);
  const five = names(await drawn(1, 5));
  assert.ok(names(three).every((name) => five.includes(name)));
  assert.match(
    (await rejects('ERR_ARGUMENT', collect({ out: out(), count: 8 }))).message,
    /at least 8 pictures, found 7/,
  );
});

tests('broken pictures are named and recorded once, the same file under two names is described once', async () => {
  const mixed = join(folder, 'mixed');
  mkdirSync(mixed);
  writeFileSync(join(mixed, 'a.jpg'), await jpeg(1));
  writeFileSync(join(mixed, 'b.jpg'), await jpeg(1));
  writeFileSync(join(mixed, 'c.jpg'), 'no picture');
  const path = out();
  for (let run = 0; run < 2; run++) {
    const { results, summary } = await collect({ pictures: mixed, out: path, refine: false });
    assert.equal(
      results.map(({ name, outcome }) => `${name} ${outcome === 'dropped' ? 'kept' : outcome}`),
      ['a.jpg kept', 'b.jpg duplicate', 'c.jpg skipped'],
    );
    assert.equal([summary.pictures, summary.skipped, summary.duplicates], [3, 1, 1]);
    assert.is(summary.asked.descriptions, run === 0 ? 1 : 0);
  }
  assert.is(record(path).filter(({ step }) => step === 'skip').length, 1);
});

// ---------------------------------------------------------------- resuming

tests('a second run asks nothing twice; a torn last line is taken away', async () => {
  await served(echo, async ({ url, asked }) => {
    const path = out();
    const options = { out: path, refine: { ...quick, url } };
    await collect(options);
    const whole = readFileSync(join(path, 'record.jsonl'), 'utf8');
    const list = captions(path);
    const again = await collect(options);
    assert.equal(again.summary.asked, { descriptions: 0, refinements: 0 });
    assert.is(asked.length, 7);
    assert.is(readFileSync(join(path, 'record.jsonl'), 'utf8'), whole);

    // torn within the last refinement: that one alone is asked again
    const refined = whole.lastIndexOf('{"step":"refine"');
    truncateSync(join(path, 'record.jsonl'), Buffer.byteLength(whole.slice(0, refined + 40)));
    const torn = await collect(options);
    assert.equal(torn.summary.asked, { descriptions: 0, refinements: 1 });
    assert.equal(captions(path), list);
  });
});

tests('a description that lost its continuation is made again, with the same words', async () => {
  const path = out();
  const options = { out: path, refine: false as const, pictures, atOnce: 1 };
  await collect(options);
  const list = captions(path);
  assert.ok(list.length > 0);
  const text = readFileSync(join(path, 'record.jsonl'), 'utf8');
  writeFileSync(join(path, 'record.jsonl'), text.slice(0, text.indexOf('{"step":"continue"')));
  const again = await collect(options);
  assert.ok(again.summary.asked.descriptions >= 1);
  assert.equal(captions(path), list);
});

tests('a process that is killed loses nothing that was recorded', async () => {
  const path = out();
  await served(echo, async ({ url, asked }) => {
    const ended = await script(`
      const { align } = await import(lib + 'data/align.ts');
      let seen = 0;
      const refine = { url: ${JSON.stringify(url)}, model: 'stand-in' };
      for await (const result of align({ pictures: ${JSON.stringify(pictures)}, out: ${JSON.stringify(path)}, atOnce: 1, requests: 1, refine }))
        if (++seen === 3) process.kill(process.pid, 'SIGKILL');`);
    assert.is(ended.signal, 'SIGKILL', ended.stderr);
    const before = asked.length;
    assert.ok(before >= 3 && before < 7, String(before));
    const done = record(path);
    const { summary } = await collect({ out: path, refine: { ...quick, url } });
    const count = (step: string) => done.filter((line) => line.step === step).length;
    assert.equal(summary.asked, { descriptions: 7 - count('describe'), refinements: 7 - count('refine') });
    assert.is(captions(path).length, 7);
  });
});

tests('an abort and a loop that is left end the work; the next run goes on', async () => {
  const path = out();
  await served(echo, async ({ url }) => {
    const stop = new AbortController();
    const options = { pictures, model, out: path, atOnce: 1, requests: 1, refine: { ...quick, url } };
    const loop = async () => {
      for await (const _ of align({ ...options, signal: stop.signal })) stop.abort();
    };
    await rejects('ERR_ABORTED', loop());
    assert.ok(captions(path).length >= 1); // what was kept is written
    for await (const _ of align(options)) break;
    const { summary } = await collect(options);
    assert.is(summary.kept, 7);
    assert.ok(summary.asked.refinements < 7);
    assert.is(record(path).filter(({ step }) => step === 'refine').length, 7);
  });
});

tests('a record of other settings or with a damaged line is refused, and stays as it is', async () => {
  const path = out();
  const options = { out: path, refine: false as const, pictures: join(pictures, '1.jpg') };
  await collect(options);
  const before = readFileSync(join(path, 'record.jsonl'), 'utf8');
  assert.match((await rejects('ERR_ARGUMENT', collect({ ...options, seed: 9 }))).message, /seed 42, found 9/);
  assert.is(readFileSync(join(path, 'record.jsonl'), 'utf8'), before);
  appendFileSync(join(path, 'record.jsonl'), '{"step":"dance"}\n');
  assert.match((await rejects('ERR_FILE_FORMAT', collect(options))).message, /line \d+: expected a step/);
});

tests('one run at a time in a folder; the lock of a process that is gone is no hindrance', async () => {
  const path = out();
  const options = { out: path, refine: false as const };
  for await (const _ of align({ pictures, model, ...options }))
    assert.match((await rejects('ERR_ARGUMENT', collect(options))).message, /no other run/);
  assert.not.ok(existsSync(join(path, 'record.lock')));
  const lock = (owner: object) => writeFileSync(join(path, 'record.lock'), JSON.stringify(owner));
  lock({ host: hostname(), process: process.ppid });
  assert.match((await rejects('ERR_ARGUMENT', collect(options))).message, new RegExp(`of process ${process.ppid}`));
  lock({ host: 'another-machine', process: 1 });
  assert.match((await rejects('ERR_ARGUMENT', collect(options))).message, /on another-machine/);
  lock({ host: hostname(), process: 2 ** 30 }); // beyond what Linux numbers processes with
  assert.is((await collect(options)).summary.described, 7);
});

// ---------------------------------------------------------------- the server's moods

const ask = (url: string, more: object = {}) => new Refiner({ ...quick, url, ...more }).refine('A description.');

tests('what passes is tried again: 5xx, pages, half JSON, missing contents, connections that break', async () => {
  const moods: Answer[] = [
    (response) => fail(response, 503, 'overloaded'),
    (response) => response.end('<html>gateway</html>'),
    (response) => response.end('{"choices": ['),
    (response) => response.end('{"choices": []}'),
    (response) => response.destroy(),
  ];
  await served(
    (response, asked, number) => (moods[number - 1] ?? echo)(response, asked, number),
    async ({ url, asked }) => {
      const refined = await ask(url);
      assert.is(refined.attempts, 6);
      assert.is(refined.model, 'stand-in-1');
      assert.is(asked.length, 6);
    },
  );
});

tests('after six attempts it ends with ERR_NETWORK that says why; a server that is not there too', async () => {
  await served(
    (response) => fail(response, 500, 'broken inside'),
    async ({ url, asked }) => {
      const error = await rejects('ERR_NETWORK', ask(url));
      assert.match(error.message, /status 500: broken inside \(after 6 attempts\)/);
      assert.is(asked.length, 6);
    },
  );
  assert.match(
    (await rejects('ERR_NETWORK', ask('http://127.0.0.1:1/v1', { attempts: 2 }))).message,
    /after 2 attempts/,
  );
});

tests('Retry-After is heeded, in seconds and as a date; one that is too long is not waited for', async () => {
  const after = (header: string): Promise<number> =>
    served(
      (response, asked, number) =>
        number === 1 ? fail(response, 429, 'slowly', { 'retry-after': header }) : echo(response, asked, number),
      async ({ url, asked }) => {
        await ask(url);
        return asked[1]!.at - asked[0]!.at;
      },
    );
  // without the header the wait is 20 ms at most; timers may fire a millisecond early
  assert.ok((await after('1')) >= 995);
  assert.ok((await after(new Date(Date.now() + 2500).toUTCString())) >= 900); // a date has no fractions of a second
  await served(
    (response) => fail(response, 429, 'quota', { 'retry-after': '86400' }),
    async ({ url, asked }) => {
      assert.match((await rejects('ERR_NETWORK', ask(url))).message, /asks to wait 86400 seconds/);
      assert.is(asked.length, 1);
    },
  );
});

tests('a slow answer ends at its time limit, an abort at once', async () => {
  await served(
    (response, asked, number) => {
      if (number > 1) echo(response, asked, number);
      else response.write('{"choices": '); // begins, and never ends
    },
    async ({ url }) => assert.is((await ask(url, { timeout: 0.2 })).attempts, 2),
  );
  await served(
    () => {},
    async ({ url }) => {
      const started = Date.now();
      await rejects('ERR_ABORTED', new Refiner({ ...quick, url }).refine('x', AbortSignal.timeout(100)));
      assert.ok(Date.now() - started < 5000);
    },
  );
});

tests('what cannot pass is not tried again, and a key that the server quotes is not told', async () => {
  const key = 'sk-very-secret';
  await served(
    (response) => fail(response, 401, `Incorrect key ${key}`),
    async ({ url, asked }) => {
      const error = await rejects('ERR_NETWORK', ask(url, { key }));
      assert.match(error.message, /status 401: Incorrect key \[key\].*MINIGPT4_REFINE_KEY/);
      assert.is(asked.length, 1);
    },
  );
  await served(
    (response) => response.writeHead(308, { location: '/v2' }).end(),
    async ({ url }) => assert.match((await rejects('ERR_NETWORK', ask(url))).message, /status 308.*moved to \/v2/),
  );
  for (const url of ['nowhere', 'ftp://host/v1', 'http://me:word@host/v1'])
    assert.throws(() => new Refiner({ ...quick, url }), /expected an address/);
});

tests('a refused description is left for the next run; many in a row end this one', async () => {
  const path = out();
  await served(
    (response, asked, number) => (number === 3 ? fail(response, 400, 'filtered') : echo(response, asked, number)),
    async ({ url }) => {
      const refine = { ...quick, url };
      const { results, summary } = await collect({ out: path, refine });
      assert.equal([summary.refused, summary.kept], [1, 6]);
      assert.match((results.find(({ outcome }) => outcome === 'refused') as { reason: string }).reason, /filtered/);
      const again = await collect({ out: path, refine });
      assert.equal([again.summary.refused, again.summary.kept, again.summary.asked.refinements], [0, 7, 1]);
    },
  );
  await served(
    (response) => fail(response, 422, 'no such field'),
    async ({ url }) => {
      assert.instance(await ask(url).catch((error: unknown) => error), RefusedError);
      const many = join(folder, 'many');
      mkdirSync(many);
      for (let i = 0; i < 10; i++) writeFileSync(join(many, `${i}.jpg`), await jpeg(i * 25));
      const error = await rejects('ERR_NETWORK', collect({ pictures: many, out: out(), refine: { ...quick, url } }));
      assert.match(error.message, /8 descriptions were refused in a row/);
    },
  );
});

tests('a failing server ends the run with its own reason, and the record has the rest', async () => {
  const path = out();
  await served(
    (response, asked, number) => (number > 2 ? fail(response, 403, 'no more') : echo(response, asked, number)),
    async ({ url }) => {
      const error = await rejects('ERR_NETWORK', collect({ out: path, requests: 1, refine: { ...quick, url } }));
      assert.match(error.message, /403: no more/);
    },
  );
  assert.is(record(path).filter(({ step }) => step === 'refine').length, 2);
  assert.is(captions(path).length, 2);
});

// ---------------------------------------------------------------- the rules

const description = 'There is a large fruit on the left, and behind it a blue background with yellow dots.';
const rule = (reply: string, phrases?: string[]) => {
  const verdict = judge(description, reply, phrases);
  return verdict.kept ? `kept: ${verdict.caption}` : verdict.rule;
};

tests('the drop rules', () => {
  const fine = 'A large fruit lies on the left before a blue background that has yellow dots.';
  assert.is(rule(`  ${fine}\n`), `kept: ${fine}`);
  assert.is(rule(''), 'empty');
  assert.is(rule(' …!? '), 'empty');
  for (const apology of [
    "I'm sorry I made a mistake",
    'I’M SORRY, I made a mistake',
    'I apologize for that',
    'i apologise, for that',
  ])
    assert.is(rule(`${apology}. ${fine}`), 'apology', apology);
  assert.is(rule(`${fine} The man looks sorry.`), `kept: ${fine} The man looks sorry.`);
  assert.is(rule(`${fine} As an AI model, I…`, ['as an ai']), 'apology');
  assert.is(rule(`${fine} This paragraph is Incomplete.`), 'incomplete');
  assert.is(rule('x'.repeat(leastCharacters - 1)), 'short');
  assert.is(rule('x'.repeat(leastCharacters)), `kept: ${'x'.repeat(leastCharacters)}`);
  // characters are counted, not the halves of pairs that JavaScript has
  assert.is(rule('𝒙'.repeat(leastCharacters - 1)), 'short');
  assert.is(rule('The input paragraph is already correct.'), `kept: ${description}`);
  assert.is(rule('It is already correct, without repetition.'), 'repetition');
  assert.is(judge('Too short.', 'Already correct.').kept, false);
});

tests('rules are told and counted', async () => {
  const replies = [
    "I'm sorry I made a mistake in the paragraph above.",
    '',
    null,
    'Short.',
    'It is incomplete, as far as can be seen in this picture.',
  ];
  await served(
    (response, asked, number) => {
      const reply = replies[number - 1];
      if (reply === undefined) echo(response, asked, number);
      else say(response, reply, 'length');
    },
    async ({ url, asked }) => {
      const path = out();
      const refine = { ...quick, url };
      // a content of null is what a server sends with a refusal or a tool: no answer, so it is tried again
      const { summary } = await collect({ out: path, requests: 1, atOnce: 1, refine });
      assert.equal(summary.dropped, { apology: 1, empty: 1, short: 1, incomplete: 1 });
      assert.equal([summary.kept, summary.cut, asked.length], [3, 4, 8]);
      assert.is(record(path).filter(({ step }) => step === 'drop').length, 4);
      assert.equal(
        captions(path).map(({ image_id }) => image_id),
        ['4', '5', '6'],
      );
      assert.equal(readdirSync(join(path, 'image')).sort(), ['4.jpg', '5.jpg', '6.jpg']);
    },
  );
});

// ---------------------------------------------------------------- options and the command

tests('wrong options are named', async () => {
  assert.match(
    (await rejects('ERR_ARGUMENT', collect({ out: out(), counts: 3 } as never))).message,
    /did you mean count/,
  );
  assert.match(
    (await rejects('ERR_ARGUMENT', collect({ out: out(), refine: { url: 'http://h', modell: 'x' } as never }))).message,
    /did you mean model/,
  );
  await rejects('ERR_FILE_NOT_FOUND', collect({ out: out(), pictures: join(folder, 'nothing') }));
});

tests('the command: key from the environment, summary, exit codes', async () => {
  const path = out();
  await served(echo, async ({ url, asked }) => {
    const words = ['data', 'align', pictures, '--out', path, '--count', '3'];
    const first = await minigpt4(words);
    assert.is(first.code, 0, first.stderr);
    assert.match(first.stdout, /3 descriptions wait: the same command with --refine-url/);
    const env = { MINIGPT4_REFINE_KEY: 'sk-of-the-environment', OPENAI_API_KEY: 'another' };
    const second = await minigpt4([...words, '--refine-url', url, '--refine-model', 'm', '--json'], { env });
    assert.is(second.code, 0, second.stderr);
    const summary = JSON.parse(second.stdout) as AlignSummary;
    assert.equal([summary.kept, summary.asked.descriptions], [3, 0]);
    assert.ok(
      asked.length === 3 && asked.every(({ authorization }) => authorization === 'Bearer sk-of-the-environment'),
    );
    assert.not.match(
      readFileSync(join(path, 'record.jsonl'), 'utf8') + second.stdout + second.stderr,
      /of-the-environment/,
    );
  });
  const both = await minigpt4(['data', 'align', pictures, '--out', path, '--refine-url', 'http://h/v1', '--no-refine']);
  assert.is(both.code, 2);
  const nameless = await minigpt4(['data', 'align', pictures, '--out', path, '--refine-url', 'http://h/v1']);
  assert.match(nameless.stderr, /--refine-model/);
});

tests.run();
