// The commands that answer, run as a user runs them: output, errors beside good answers, pipes, Ctrl-C, a reader that leaves.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { minigpt4 } from './command.js';
import { device } from './device-models.js';
import { fixture, tinyModel } from './models.js';

const tiny = await tinyModel();
const commands = suite('commands');
commands.after(() => tiny.remove());

const greedy = ['--model', tiny.path, '--temperature', '0'];
const length = ['--max-tokens', String(tiny.greedyIds.length)];
const gray = fixture('images/gray.png');
const { chat: expected } = JSON.parse(readFileSync(fixture('expected.json'), 'utf8')) as {
  chat: { greedy_text: string };
};

interface Line {
  image?: string;
  question?: string;
  text?: string;
  ids?: number[];
  finishReason?: string;
  usage?: {
    promptTokens: number;
    imageTokens: number;
    completionTokens: number;
    guessedTokens: number;
    acceptedTokens: number;
  };
  timings?: Record<string, number>;
  error?: { code: string; message: string };
}
const lines = (output: string) =>
  output
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);

commands("describe --json prints the reference's ids, one object a picture", async () => {
  const words = [
    'describe',
    tiny.picture,
    gray,
    ...greedy,
    ...length,
    '--prompt',
    'Describe this image in detail.',
    '--json',
  ];
  const { code, stdout, stderr } = await minigpt4(words);
  assert.is(code, 0, stderr);
  assert.is(stderr, '');
  const [first, second] = lines(stdout);
  assert.is(first!.image, tiny.picture);
  assert.equal(first!.ids, tiny.greedyIds);
  assert.is(first!.text, expected.greedy_text.trim());
  assert.is(first!.finishReason, 'length');
  assert.is(first!.usage!.completionTokens, tiny.greedyIds.length);
  assert.equal(Object.keys(first!.timings!), ['encodeMs', 'prefillMs', 'decodeMs', 'firstTokenMs', 'totalMs']);
  assert.is(second!.image, gray);
  assert.not.equal(second!.ids, first!.ids);
});

commands('describe --lookup guesses tokens and prints the same', async () => {
  // random weights repeat themselves
  const words = ['describe', tiny.picture, ...greedy, '--max-tokens', '60', '--json'];
  const [plain] = lines((await minigpt4(words)).stdout);
  const [guessed] = lines((await minigpt4([...words, '--lookup', '4'])).stdout);
  assert.equal(guessed!.ids, plain!.ids);
  assert.is(plain!.usage!.guessedTokens, 0);
  assert.ok(guessed!.usage!.acceptedTokens > 0, JSON.stringify(guessed!.usage));
});

commands('describe prints the text; with several pictures each after its name', async () => {
  const one = await minigpt4(['describe', tiny.picture, ...greedy, ...length]);
  assert.is(one.code, 0, one.stderr);
  assert.is(one.stdout, `${expected.greedy_text.trim()}\n`);
  const two = await minigpt4(['describe', tiny.picture, gray, ...greedy, '--max-tokens', '3']);
  assert.ok(two.stdout.startsWith(`${tiny.picture}: `) && two.stdout.includes(`\n${gray}: `), two.stdout);
});

commands('describe reads standard input', async () => {
  const { stdout } = await minigpt4(['describe', '-', ...greedy, ...length], { input: readFileSync(tiny.picture) });
  assert.is(stdout, `${expected.greedy_text.trim()}\n`);
});

commands('one bad picture among several is told, the others are answered, and the end is a failure', async () => {
  const text = join(tiny.folder, 'text.jpg');
  writeFileSync(text, 'no picture');
  const missing = join(tiny.folder, 'missing.jpg');
  const json = await minigpt4(['describe', text, tiny.picture, missing, ...greedy, ...length, '--json']);
  assert.is(json.code, 1);
  const [bad, good, gone] = lines(json.stdout);
  assert.equal([bad!.image, bad!.error!.code], [text, 'ERR_IMAGE']);
  assert.equal(good!.ids, tiny.greedyIds);
  assert.equal([gone!.image, gone!.error!.code], [missing, 'ERR_FILE_NOT_FOUND']);
  const plain = await minigpt4(['describe', text, tiny.picture, ...greedy, ...length]);
  assert.is(plain.code, 1);
  assert.match(plain.stderr, /^minigpt4: the picture .*text\.jpg is no picture/m);
  assert.match(plain.stdout, new RegExp(`^${tiny.picture}: `, 'm'));
});

commands('the same seed says the same', async () => {
  const words = [
    'describe',
    tiny.picture,
    '--model',
    tiny.path,
    '--max-tokens',
    '8',
    '--json',
    '--seed',
    '18446744073709551615',
  ];
  const [a, b] = [await minigpt4(words), await minigpt4(words)];
  assert.equal(lines(a.stdout)[0]!.ids, lines(b.stdout)[0]!.ids);
  assert.match(a.stdout, /"seed":"18446744073709551615"/);
});

commands('a prompt beyond the context is a failure with its code', async () => {
  const { code, stdout } = await minigpt4(['describe', tiny.picture, ...greedy, '--json', '--context-length', '100']);
  assert.is(code, 1);
  assert.is(lines(stdout)[0]!.error!.code, 'ERR_CONTEXT_FULL');
});

commands('chat reads a pipe: answers alone on stdout, commands obeyed, errors told', async () => {
  const input = `/image ${tiny.picture}\nDescribe this image in detail.\n\nWhat else?\n/restart\n/image '${tiny.picture}'\nDescribe this image in detail.\n/exit\nnever asked\n`;
  const { code, stdout, stderr } = await minigpt4(['chat', ...greedy, ...length], { input });
  assert.is(code, 0, stderr);
  assert.is(stderr, '');
  const text = expected.greedy_text.trim();
  const parts = stdout.split(`${text}\n`);
  assert.is(parts.length, 3, stdout);
  assert.ok(parts[0] === '' && parts[1]!.length > 2 && parts[2] === '', stdout);
});

commands('chat --json gives an object an answer, and goes on after an error', async () => {
  const input = `/image ${join(tiny.folder, 'missing.jpg')}\n/imgae x\n/image\nDescribe this image in detail.\n`;
  const { code, stdout } = await minigpt4(['chat', ...greedy, ...length, '--json', '--image', tiny.picture], { input });
  assert.is(code, 1);
  const [missing, unknown, nothing, answer] = lines(stdout);
  assert.is(missing!.error!.code, 'ERR_FILE_NOT_FOUND');
  assert.match(unknown!.error!.message, /unknown command \/imgae; did you mean \/image\?/);
  assert.is(nothing!.error!.code, 'ERR_ARGUMENT');
  assert.is(answer!.question, 'Describe this image in detail.');
  assert.equal(answer!.ids, tiny.greedyIds);
});

const endless = ['describe', tiny.picture, ...greedy, '--max-tokens', '1900'];

for (const [what, name] of [
  ['Ctrl-C', 'SIGINT'],
  ['a terminal that is closed', 'SIGHUP'],
] as const) {
  commands(`${what} ends the answer and the process, in order`, async () => {
    let sent = false;
    const { code, signal, stderr } = await minigpt4(endless, {
      onOutput: (stdout, child) => {
        if (!sent && stdout.length > 3) sent = child.kill(name);
      },
    });
    assert.ok(sent);
    assert.equal([code, signal], [130, null]);
    assert.match(stderr, /^minigpt4: aborted/m);
  });
}

commands('an output that cannot be written is a failure in one sentence', async () => {
  if (!existsSync('/dev/full')) return; // Linux has it
  const full = openSync('/dev/full', 'w');
  const main = join(import.meta.dirname, '../lib/cli/main.ts');
  const child = spawn(process.execPath, ['--import', 'tsx', main, 'describe', tiny.picture, ...greedy, ...length], {
    stdio: ['ignore', full, 'pipe'],
  });
  let stderr = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const code = await new Promise((resolve) => child.on('close', resolve));
  closeSync(full);
  assert.is(code, 1);
  assert.match(stderr, /^minigpt4: standard output cannot be written: ENOSPC[^\n]*\n$/);
});

commands('--max-pixels raises and lowers the limit', async () => {
  const { code, stdout } = await minigpt4(['describe', tiny.picture, ...greedy, '--json', '--max-pixels', '10']);
  assert.is(code, 1);
  assert.match(lines(stdout)[0]!.error!.message, /expected at most 10 pixels, .*--max-pixels/);
});

commands('a reader that leaves ends the process in peace', async () => {
  const { code, signal, stderr } = await minigpt4(endless, { onOutput: (_, child) => child.stdout!.destroy() });
  assert.equal([code, signal], [0, null]);
  assert.is(stderr, '');
});

commands('bench measures encoding, prefill and decoding', async () => {
  const sizes = ['--prompt', '32', '--generate', '8', '--repeat', '3'];
  const { code, stdout, stderr } = await minigpt4(['bench', '--model', tiny.path, ...sizes, '--json']);
  assert.is(code, 0, stderr);
  const { results, device, gpuLayers, visionDevice, memory, memoryBytes } = JSON.parse(stdout) as {
    device: string;
    gpuLayers: number;
    visionDevice: string;
    memory: { gpu: number; host: number };
    memoryBytes: number;
    results: { test: string; runs: number[]; medianMs: number; perSecond: number; gigabytesPerSecond?: number }[];
  };
  assert.equal(
    results.map(({ test }) => test),
    ['enc', 'pp32', 'tg8'],
  );
  assert.match(device, /^cpu /);
  assert.equal([gpuLayers, visionDevice, memory.gpu, memory.host], [0, 'cpu', 0, memoryBytes]);
  for (const { runs, medianMs, perSecond } of results) {
    assert.is(runs.length, 3);
    assert.is(medianMs, [...runs].sort((a, b) => a - b)[1]);
    assert.ok(perSecond > 0);
  }
  assert.ok(results[2]!.gigabytesPerSecond! > 0);
  const beyond = await minigpt4(['bench', '--model', tiny.path, '--prompt', '2041', '--generate', '8', '--json']);
  assert.is(beyond.code, 2, beyond.stdout);
  assert.match(beyond.stdout, /fit the context of 2048 positions together, found 2041 and 8/);
  const table = await minigpt4(['bench', '--model', tiny.path, ...sizes]);
  assert.match(table.stdout, /^.* \(cpu [^\n]*\): loaded in [\d.]+ s, holds \d+ MiB\n/);
  assert.match(table.stdout, /^tg8 +[\d.]+ ms +[\d.]+ tokens\/s +[\d.]+ GB\/s$/m);
  const alone = await minigpt4(['bench', '--llm', fixture('../tiny-gqa/vicuna-f16.gguf'), ...sizes, '--json']);
  assert.is(alone.code, 0, alone.stderr);
  assert.equal(
    (JSON.parse(alone.stdout) as { results: { test: string }[] }).results.map(({ test }) => test),
    ['pp32', 'tg8'],
  );
});

commands('bench tells a device, and what it holds beside the CPU', async () => {
  const sizes = ['--prompt', '4', '--generate', '2', '--repeat', '1', '--context-length', '64'];
  const on = ['bench', '--llm', fixture('../tiny-gqa/vicuna-f16.gguf'), '--device', device, ...sizes];
  const parted = await minigpt4([...on, '--gpu-layers', '1', '--json']);
  assert.is(parted.code, 0, parted.stderr);
  const report = JSON.parse(parted.stdout) as {
    device: string;
    gpuLayers: number;
    memory: { gpu: number; host: number };
    memoryBytes: number;
  };
  assert.is(report.gpuLayers, 1);
  assert.ok(report.memory.gpu > 0 && report.memory.host > 0, JSON.stringify(report.memory));
  assert.is(report.memory.gpu + report.memory.host, report.memoryBytes);
  const table = await minigpt4(on);
  const [head] = table.stdout.split('\n');
  assert.match(head!, /holds \d+ MiB of the GPU's memory$/);
  assert.not.match(head!, / on .*(AMD|Intel)/);
  assert.ok(head!.startsWith(`vicuna-f16.gguf on ${report.device.split(':')[0]!}`), head);
  // what the model says of its layers is said in flags
  const beyond = await minigpt4([...on, '--gpu-layers', '99']);
  assert.is(beyond.code, 2, beyond.stderr);
  assert.match(beyond.stderr, /--gpu-layers is 99, but the language model has \d+ layers/);
});

commands('the embedded miniature says what it is, but not among JSON', async () => {
  const picture = join(import.meta.dirname, '../models/example.jpg');
  const plain = await minigpt4(['describe', picture, '--temperature', '0']);
  assert.is(plain.code, 0, plain.stderr);
  assert.match(plain.stderr, /embedded miniature: it knows only simple scenes of pictograms/);
  assert.match(plain.stderr, /README\.md/);
  assert.match(plain.stdout, /^The image shows .*\.\n$/);
  const json = await minigpt4(['describe', picture, '--temperature', '0', '--json']);
  assert.is(json.stderr, '');
  assert.is(`${lines(json.stdout)[0]!.text}\n`, plain.stdout);
});

commands.run();
