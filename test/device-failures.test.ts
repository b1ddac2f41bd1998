// What goes wrong with a GPU, forced on the emulator: each failure is told with its code and words, the process lives, and what was there
// before is there afterwards. Every case is a process of its own, because the emulator reads its faults once.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { deviceModels, type DeviceModels } from './device-models.js';

const test = suite('device failures');
let models: DeviceModels;
let path: string;

test.before(async () => {
  models = deviceModels();
  path = await models.model('tiny-llama2', 'q8_0');
});
test.after(() => models.remove());

interface Outcome {
  /** 'loaded', 'answered' or the code of an error, for each step that was tried. */
  steps: string[];
  messages: string[];
  gpuLayers?: number;
  /** In how many three pictures that waited for each other were encoded, the first time and the second. */
  passes: number[];
}

/** Loads, answers twice, trains, closes, and answers once more on the CPU: in a process whose emulator behaves as `simt` says. */
async function run(simt: string, device = 'simt', ...more: string[]): Promise<Outcome> {
  const script = fileURLToPath(new URL('./device-failures-run.ts', import.meta.url));
  const { stdout, stderr, code } = await new Promise<{ stdout: string; stderr: string; code: unknown }>((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', script, path, device, ...more],
      { env: { ...process.env, MINIGPT4_SIMT: simt }, timeout: 120_000 },
      (error, out, err) => resolve({ stdout: out, stderr: err, code: error ? (error.signal ?? error.code) : 0 }),
    );
  });
  assert.is(code, 0, `MINIGPT4_SIMT=${simt} ended the process: ${String(code)}\n${stderr}`);
  return JSON.parse(stdout) as Outcome;
}

const all = ['loaded', 'answered', 'answered', 'trained', 'closed', 'answered on the CPU'];

test('nothing fails when nothing is told to', async () => {
  assert.equal((await run('')).steps, all);
});

for (const [simt, device, words] of [
  ['devices=0', 'simt', /no (CUDA )?device/i],
  ['driver=OLD', 'simt', /driver.*580/s],
  ['devices=2', 'simt:2', /2 devices|simt:2|0 to 1/],
] as const) {
  test(`${simt}: loading on ${device} says what is missing`, async () => {
    const { steps, messages } = await run(simt, device);
    assert.equal(steps, ['ERR_NO_BACKEND', 'answered on the CPU']);
    assert.match(messages[0]!, words);
  });
}

test('a second device computes as the first', async () => {
  assert.equal((await run('devices=2', 'simt:1')).steps, all);
});

test('out of memory at any allocation is told, and the process goes on', async () => {
  const seen = new Set<string>();
  for (const call of [1, 2, 5, 20, 40, 60, 80, 100]) {
    const { steps, messages } = await run(`fail=malloc:${call}`);
    assert.is(steps.at(-1), 'answered on the CPU');
    for (const [i, step] of steps.entries()) {
      if (!step.startsWith('ERR_')) continue;
      assert.ok(['ERR_OUT_OF_MEMORY', 'ERR_NO_BACKEND'].includes(step), `allocation ${call}, step ${i}: ${step}`);
      seen.add(step);
    }
    for (const message of messages) assert.match(message, /bytes|memory/);
  }
  assert.ok(seen.has('ERR_OUT_OF_MEMORY'));
});

test('a launch that fails ends one answer, and the next one is right', async () => {
  let failed = 0;
  for (const call of [40, 120, 400]) {
    const { steps } = await run(`fail=launch:${call}`);
    assert.is(steps.at(-1), 'answered on the CPU');
    failed += steps.filter((step) => step === 'ERR_CUDA').length;
    assert.equal(
      steps.filter((step) => step.startsWith('ERR_') && step !== 'ERR_CUDA'),
      [],
    );
  }
  assert.ok(failed > 0, 'some launch failed');
});

test('where a pass of several pictures fails, each is encoded alone and none is lost', async () => {
  const whole = await run('', 'simt', 'pictures');
  assert.equal(whole.steps, ['loaded', 'encoded', 'encoded', ...all.slice(1)]);
  assert.equal(whole.passes, [1, 1]);
  let parted = 0;
  // launches are the busy prompt's, the pictures', and again
  for (const call of [48, 52, 56]) {
    const { steps, passes } = await run(`fail=launch:${call}`, 'simt', 'pictures');
    if (!passes.includes(3)) continue; // a prompt was met
    assert.equal(steps, whole.steps);
    parted++;
  }
  assert.ok(parted > 0, 'some pass of pictures failed');
});

test('a card that is lost says that the model must be loaded again', async () => {
  const { steps, messages } = await run('fail=lost:300');
  assert.ok(steps.includes('ERR_CUDA'), String(steps));
  assert.is(steps.at(-1), 'answered on the CPU');
  assert.match(messages.join('\n'), /load(ed)? (the model )?again|must be loaded again/);
});

test('on a small card the layers that do not fit stay on the CPU', async () => {
  const { steps, messages, gpuLayers } = await run('memory=3000000');
  assert.is(gpuLayers, 1, 'of two');
  assert.equal(steps, ['loaded', 'answered', 'answered', 'ERR_UNSUPPORTED', 'closed', 'answered on the CPU']);
  assert.match(messages[0]!, /training needs the whole language model in one place, but 1 of its 2 layers/);
});

test.run();
