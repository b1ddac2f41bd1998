// Nothing that a program does with a model's life ends the process: close, exit and garbage at every stage, threads, loading twice.
import { readFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { script } from './command.js';
import { tinyModel } from './models.js';

const tiny = await tinyModel();
const lifecycle = suite('lifecycle');
lifecycle.after(() => tiny.remove());

const start = `
const { MiniGPT4 } = await import(lib + 'index.ts');
const path = ${JSON.stringify(tiny.path)};
const picture = ${JSON.stringify(tiny.picture)};
const load = () => MiniGPT4.load({ model: path, threads: 2 });
const long = { maxTokens: 1500, temperature: 0 };
const firstPiece = async (run) => { for await (const piece of run) return piece; };
const wait = (ms) => new Promise((resume) => setTimeout(resume, ms));
`;

/** A script that must end by itself with `code`, having printed `output`. */
async function ends(text: string, code: number, output: RegExp, flags: string[] = []): Promise<void> {
  const ended = await script(start + text, {}, flags);
  const all = JSON.stringify(ended);
  assert.is(ended.signal, null, all);
  assert.is(ended.code, code, all);
  assert.match(ended.stdout, output);
}

lifecycle('a model that is only loaded does not keep the process alive', () =>
  ends(`await load(); console.log('loaded');`, 0, /loaded/),
);

lifecycle('a model that is closed leaves nothing behind', () =>
  ends(
    `
  const model = await load();
  await model.describe(picture, { temperature: 0, maxTokens: 3 });
  await model.close();
  console.log('closed');
`,
    0,
    /closed/,
  ),
);

lifecycle('close twice, close at once, close from two sides', () =>
  ends(
    `
  const model = await load();
  await Promise.all([model.close(), model.close()]);
  await model.close();
  const other = await load();
  await other[Symbol.asyncDispose]();
  console.log('closed');
`,
    0,
    /closed/,
  ),
);

for (const [stage, wait] of [
  ['reading a picture', '0'],
  ['encoding', '3'],
  ['prefill', '12'],
  ['decoding', '150'],
] as const) {
  lifecycle(`close while ${stage}`, () =>
    ends(
      `
    const model = await load();
    const run = model.describe(picture, long);
    await wait(${wait});
    await model.close();
    await run.then(() => console.log('done'), (error) => console.log(error.code));
  `,
      0,
      /^ERR_CLOSED\n$/,
    ),
  );

  lifecycle(`exit while ${stage}`, () =>
    ends(
      `
    const model = await load();
    model.describe(picture, long);
    await wait(${wait});
    console.log('leaving');
    process.exit(7);
  `,
      7,
      /leaving/,
    ),
  );
}

lifecycle('exit while loading', () =>
  ends(`load(); await wait(1); console.log('leaving'); process.exit(7);`, 7, /leaving/),
);

lifecycle('an uncaught error while decoding ends the process as usual', () =>
  ends(
    `
  const model = await load();
  await firstPiece(model.describe(picture, long));
  model.describe(picture, long);
  console.log('leaving');
  setTimeout(() => { throw new Error('mine'); }, 20);
`,
    1,
    /leaving/,
  ),
);

lifecycle('work goes on when the model is forgotten, then the process ends', () =>
  ends(
    `
  let model = await load();
  const run = model.describe(picture, { temperature: 0, maxTokens: 50 });
  model = undefined;
  for (let i = 0; i < 5; i++) { globalThis.gc(); await wait(5); }
  console.log((await run).ids.length);
`,
    0,
    /^50\n$/,
    ['--expose-gc'],
  ),
);

lifecycle('models and chats that are forgotten are freed', () =>
  ends(
    `
  const rss = () => process.memoryUsage().rss / 2 ** 20;
  let before;
  for (let i = 0; i < 40; i++) {
    const model = await load();
    const chat = model.chat({ temperature: 0, maxTokens: 2 });
    await chat.image(picture);
    await chat.ask('What?');
    globalThis.gc();
    await wait(1);
    if (i === 9) before = rss();
  }
  globalThis.gc(); await wait(50); globalThis.gc();
  console.log(rss() - before < 60 ? 'freed' : 'kept ' + (rss() - before) + ' MiB');
`,
    0,
    /^freed\n$/,
    ['--expose-gc'],
  ),
);

lifecycle('chats closed in any order, also after their model', () =>
  ends(
    `
  const model = await load();
  const chats = [0, 1, 2].map(() => model.chat({ temperature: 0, maxTokens: 3 }));
  await Promise.all(chats.map((chat) => chat.ask('Hello')));
  chats[1].close();
  await model.close();
  chats[0].close();
  chats[2].close();
  globalThis.gc();
  console.log('closed');
`,
    0,
    /closed/,
    ['--expose-gc'],
  ),
);

lifecycle('the same file loaded twice at once', () =>
  ends(
    `
  const models = await Promise.all([load(), load()]);
  const answers = await Promise.all(models.map((model) => model.describe(picture, { temperature: 0, maxTokens: 8 })));
  console.log(String(answers[0].ids) === String(answers[1].ids));
  await Promise.all(models.map((model) => model.close()));
`,
    0,
    /^true\n$/,
  ),
);

lifecycle('a failed load leaves a working process', () =>
  ends(
    `
  for (const wrong of [path + '.missing', picture]) await MiniGPT4.load({ model: wrong }).catch((error) => console.log(error.code));
  const model = await load();
  console.log((await model.describe(picture, { maxTokens: 1 })).ids.length);
`,
    0,
    /^ERR_FILE_NOT_FOUND\nERR_FILE_FORMAT\n1\n$/,
  ),
);

// what a worker runs; it needs a loader of its own for TypeScript
const worker = (body: string) => `
  const { Worker } = await import('node:worker_threads');
  const text = 'const lib = ' + JSON.stringify(lib) + ';' + ${JSON.stringify(
    `const { register } = await import(${JSON.stringify(import.meta.resolve('tsx/esm/api'))}); register();${start}${body}`,
  )};
  const open = () => new Worker(new URL('data:text/javascript,' + encodeURIComponent(text)));
`;

lifecycle('worker threads load and answer, beside the main thread', () =>
  ends(
    `
  ${worker(`
    const { parentPort } = await import('node:worker_threads');
    const model = await load();
    parentPort.postMessage((await model.describe(picture, { temperature: 0, maxTokens: 8 })).ids.join());
    await model.close();
  `)}
  const model = await load();
  const here = model.describe(picture, { temperature: 0, maxTokens: 8 });
  const there = await Promise.all([open(), open()].map((thread) => new Promise((resolve, reject) => {
    let answer;
    thread.on('message', (ids) => { answer = ids; }).on('error', reject).on('exit', () => resolve(answer));
  })));
  const ids = (await here).ids.join();
  console.log(there.every((answer) => answer === ids));
`,
    0,
    /^true\n$/,
  ),
);

lifecycle('a worker that is terminated while it answers', () =>
  ends(
    `
  ${worker(`
    const { parentPort } = await import('node:worker_threads');
    const model = await load();
    const run = model.describe(picture, long);
    for await (const piece of run) parentPort.postMessage(piece);
  `)}
  for (let i = 0; i < 3; i++) {
    const thread = open();
    await new Promise((resolve, reject) => thread.once('message', resolve).once('error', reject));
    await thread.terminate();
  }
  const model = await load();
  console.log((await model.describe(picture, { maxTokens: 2 })).ids.length);
`,
    0,
    /^2\n$/,
  ),
);

for (const [what, work] of [
  ['loads', 'parentPort.postMessage(0); await load();'],
  ['encodes a picture', 'const model = await load(); parentPort.postMessage(0); await model.describe(picture, long);'],
  [
    'reads a file',
    "parentPort.postMessage(0); await (await import('./lib/addon.ts')).addon.readGguf(process.env.MINIGPT4_MODEL ?? 'models/minigpt4-miniature.gguf');",
  ],
  ['closes', 'const model = await load(); parentPort.postMessage(0); await model.close();'],
] as const) {
  lifecycle(`a worker that is terminated while it ${what}`, () =>
    ends(
      `
  ${worker(`
    const { parentPort } = await import('node:worker_threads');
    ${work}
  `)}
  for (let i = 0; i < 8; i++) {
    const thread = open();
    await new Promise((resolve, reject) => thread.once('message', resolve).once('error', reject));
    await new Promise((resolve) => setTimeout(resolve, 3 * i)); // at another moment each time
    await thread.terminate();
  }
  const model = await load();
  console.log((await model.describe(picture, { maxTokens: 2 })).ids.length);
`,
      0,
      /^2\n$/,
    ),
  );
}

lifecycle('importing never needs the binary; using it without says what to do', async () => {
  const empty = new URL('./fixtures/llama-tokenizer/', import.meta.url).pathname; // a folder without a binary
  const ended = await script(
    start +
      `
    console.log('imported');
    await load().catch((error) => console.log(error.code, error.message));
  `,
    { env: { MINIGPT4_PREBUILD: empty } },
  );
  assert.is(ended.code, 0, ended.stderr);
  assert.match(ended.stdout, /^imported\nERR_NO_BACKEND the native part of minigpt4 could not be loaded on \w+ \w+/);
  assert.match(ended.stdout, /No native build was found/);
  assert.match(ended.stdout, /What helps:\n {2}- build it/);
});

lifecycle('the file that every test reads is what it was', () => {
  assert.ok(readFileSync(tiny.path).subarray(0, 4).equals(Buffer.from('GGUF')));
});

lifecycle.run();
