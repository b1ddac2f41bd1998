// Training with several processes from the command line: the same gradient as one process has for the whole batch, and a rank that dies.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readCheckpoint } from '../lib/train/checkpoint.js';
import { checkpointName } from '../lib/train/run-folder.js';
import { relativeError } from '../lib/verify/measure.js';
import { minigpt4, type Ended } from './command.js';
import { picture } from './data-files.js';
import { missingGloo } from './gloo.js';
import { tinyModel, type TinyModel } from './models.js';

const processes = suite('training in processes');
const reason = missingGloo();
if (reason !== undefined) console.log(`skipped: ${reason}`);
const withGloo = reason === undefined ? processes : processes.skip;
let tiny: TinyModel;

processes.before(async () => {
  tiny = await tinyModel();
  mkdirSync(join(tiny.folder, 'data'));
  const lines: string[] = [];
  for (let i = 0; i < 9; i++) {
    writeFileSync(join(tiny.folder, 'data', `${i}.png`), await picture(i));
    lines.push(JSON.stringify({ path: `${i}.png`, caption: `picture ${i}${' and more'.repeat(i % 4)}` }));
  }
  writeFileSync(join(tiny.folder, 'data', 'pairs.jsonl'), lines.join('\n'));
});
processes.after(() => tiny.remove());

/** A configuration of stage 1 with so many pairs a process. */
function configuration(name: string, batchSize: number, steps: number): string {
  const path = join(tiny.folder, `${name}.yaml`);
  const sections = {
    model: { path: tiny.path },
    datasets: {
      pairs: { batch_size: batchSize, build_info: { storage: join(tiny.folder, 'data', 'pairs.jsonl') } },
    },
    run: {
      ...{ job_name: name, output_dir: tiny.folder, init_lr: 0.01, min_lr: 0.001, warmup_lr: 0.001 },
      ...{ max_epoch: 1, iters_per_epoch: steps, checkpoint_every: 1, keep: 9, threads: 1 },
    },
  };
  writeFileSync(path, JSON.stringify(sections)); // JSON is YAML
  return path;
}

const stepsOf = (ended: Ended) =>
  ended.stdout
    .split('\n')
    .filter((line) => line.startsWith('{"kind":"step"'))
    .map((line) => JSON.parse(line) as { loss: number; gradientNorm: number; pairs: number; targets: number });

withGloo('two processes with half a batch each have the gradient of one with the whole', async () => {
  const folder = (name: string) => join(tiny.folder, name);
  const one = await minigpt4(['train', configuration('one', 4, 2), '--json', '--output', folder('one')]);
  assert.is(one.code, 0, one.stderr);
  const two = await minigpt4([
    ...['train', configuration('two', 2, 2), '--json', '--output', folder('two'), '--nproc-per-node', '2'],
  ]);
  assert.is(two.code, 0, two.stderr);
  const [whole, halves] = [stepsOf(one), stepsOf(two)];
  assert.is(halves.length, 2);
  assert.equal(
    halves.map(({ pairs, targets }) => [pairs, targets]),
    whole.map(({ pairs, targets }) => [pairs, targets]),
  );
  // Sums of some 400 float32 products in another order: each process's share is one chain, then two numbers are added. An error of
  // sqrt(400) / 2^24 of the largest terms is 1e-6; the losses are added in float64.
  assert.ok(Math.abs(halves[0]!.loss - whole[0]!.loss) < 1e-9 * whole[0]!.loss);
  const first = async (name: string) =>
    (await readCheckpoint(join(folder(name), checkpointName(1)))).trainer.firstMoment;
  // after one step the first moment is a tenth of the gradient
  const [a, b] = [await first('two'), await first('one')];
  for (const part of ['weight', 'bias'] as const) {
    assert.ok(b[part].some((value) => value !== 0));
    const error = relativeError(a[part], b[part]);
    assert.ok(error < 3e-6, `${part}: off by ${error}`);
  }
});

// children and their environments are read from /proc
const onLinux = process.platform === 'linux' ? withGloo : processes.skip;
for (const rank of [0, 1]) {
  onLinux(
    `rank ${rank} is killed: the run ends on all, by its name, with a checkpoint that is gone on with`,
    async () => {
      const config = configuration(`killed${rank}`, 2, 400);
      const folder = join(tiny.folder, `killed${rank}`);
      const words = ['train', config, '--output', folder, '--nproc-per-node', '2', '--json'];
      let killed = false;
      const ended = await minigpt4(words, {
        onOutput(stdout, child) {
          if (killed || !stdout.includes('"step":5,')) return;
          killed = true;
          const victim = childrenOf(child.pid!).find((pid) => environmentOf(pid).includes(`RANK=${rank}`));
          assert.ok(victim, `no process of rank ${rank}`);
          process.kill(victim, 'SIGKILL');
        },
      });
      assert.ok(killed);
      assert.is.not(ended.code, 0);
      assert.match(ended.stdout + ended.stderr, new RegExp(`rank ${rank}`));
      const latest = readFileSync(join(folder, 'latest'), 'utf8').trim();
      const { state } = await readCheckpoint(join(folder, latest));
      assert.ok(state.step >= 5 && state.step < 400, `step ${state.step}`);
      assert.is(state.ranks.length, 2);
      // the rest of a shorter run
      const rest = await minigpt4([...words, '--resume', folder, '--set', `run.iters_per_epoch=${state.step + 2}`]);
      assert.is(rest.code, 0, rest.stderr);
      assert.equal(
        stepsOf(rest).map(({ pairs }) => pairs),
        [4, 4],
      );
    },
  );
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(/\s+/).filter(Boolean).map(Number);
const environmentOf = (pid: number): string[] => readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');

processes.run();
