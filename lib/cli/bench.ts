// `minigpt4 bench`: what this machine can do at most, and what models of real sizes reach on it; or one model of the user's.
import { constants, existsSync, statSync } from 'node:fs';
import { access, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, resolve, sep } from 'node:path';
import type { Command } from 'commander';
import type { NativeLoadOptions } from '../addon.js';
import type { ModelReport } from '../bench/one-model.js';
import { MiniGptError, toMiniGptError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';
import { checkLoad } from '../load-options.js';
import { nearest } from '../nearest.js';
import {
  addModelFlags,
  exitCodes,
  flagOf,
  inFlags,
  jsonLine,
  modelFlags,
  parseNumber,
  picked,
  type ModelFlags,
} from './program.js';
import { interruptSignal, loadingProgress, say } from './terminal.js';

interface SuiteFlags {
  models?: string;
  quick?: boolean;
  level?: string;
  peers?: boolean;
  peerFolder?: string;
  busy?: boolean;
  folder?: string;
  out?: string;
}

type Flags = ModelFlags & SuiteFlags & { prompt: number; generate: number; repeat?: number; json?: boolean };

const REPEAT = { full: 5, quick: 3 };

export function register(program: Command): void {
  const command = program
    .command('bench')
    .summary('measure this machine, and models on it')
    .description(
      `Measures what this machine can do at most (memory, multiply-adds, int8 products), then models of real sizes with random weights on it:
reading a prompt of N tokens (ppN), writing N tokens (tgN), eight conversations at once, encoding a picture (enc), loading, memory. With
--model or --llm: that model alone. A full run takes up to half an hour, 12 GB of disk and as much memory, with --peers 16 GB; what does not fit
is left out.`,
    );
  addModelFlags(command, 'bundle or vision file to measure (default: none; MINIGPT4_MODEL does not count)')
    .option('--models <list>', 'synthetic models: 65m, 1.1b, 7b, 13b, vit-g, also as 7b:q4_0 (default: all but 13b)')
    .option('--quick', '65m and 1.1b alone, with fewer repeats: a few minutes')
    .option(
      '--level <list>',
      "the CPU's instruction set levels, the first with everything (default: all but scalar; --quick or one's own model: the best)",
    )
    .option('--peers', 'beside them node-llama-cpp and onnxruntime-node, which npm installs into a folder of their own')
    .option('--peer-folder <folder>', "where they get that folder (default: in the user's folder for caches)")
    .option('--busy', 'also with one core kept busy by another process')
    .option('--folder <folder>', 'where synthetic files are written and stay (default: a temporary folder)')
    .option('--out <path>', 'write the record there: a JSON file, or a folder that gets one')
    .option('--prompt <n>', "tokens of one's own model's prompt", parseNumber, 512)
    .option('--generate <n>', "tokens for one's own model to write", parseNumber, 128)
    .option('--repeat <n>', 'times that each is measured (default: 5; --quick: 3)', parseNumber)
    .option('--json', 'one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 bench --quick
  $ minigpt4 bench --peers --busy --out bench.json
  $ minigpt4 bench --models 7b:q4_0,vit-g --threads 4 --folder synthetic
  $ minigpt4 bench --model vicuna-7b-q4_k.gguf --threads 4 --prompt 128 --generate 32 --repeat 3 --json`,
    )
    .action(bench);
}

const wrong = (option: string, expected: string): MiniGptError =>
  new MiniGptError('ERR_ARGUMENT', `bench: option ${option}: expected ${expected}`);

async function bench(flags: Flags, command: Command): Promise<void> {
  checkLoad(modelFlags(flags), 'bench', flagOf);
  for (const name of ['prompt', 'generate', 'repeat'] as const) {
    const least = name === 'generate' ? 2 : 1; // decoding is timed between tokens
    const value = flags[name];
    if (value !== undefined && (!Number.isInteger(value) || value < least))
      throw wrong(`--${name}`, `a whole number from ${least}, found ${value}`);
  }
  const given = (name: keyof Flags): boolean => command.getOptionValueSource(name) === 'cli';
  const own = flags.model !== undefined || flags.llm !== undefined;
  const suiteOnly = ['models', 'quick', 'peers', 'peerFolder', 'busy', 'folder', 'out'] as const;
  const ownOnly = Object.keys({ ...modelFlags(flags), ...picked(flags, ['prompt', 'generate']) }) as (keyof Flags)[];
  for (const name of own ? suiteOnly : ownOnly) {
    if (!given(name) || (!own && name === 'threads')) continue;
    const beside = own ? 'synthetic models, found --model or --llm beside it' : '--model or --llm beside it';
    throw wrong(flagOf(name), beside);
  }
  if (own && flags.level?.includes(','))
    throw wrong('--level', `one level for one's own model, found "${flags.level}"`);
  if (flags.peerFolder !== undefined && !flags.peers) throw wrong('--peer-folder', '--peers beside it');
  await (own ? benchModel(flags, given) : benchSuite(flags));
}

// ---------------------------------------------------------------- synthetic models

/** Levels in the order in which they are measured, the main one first. Error ERR_ARGUMENT names what this machine has. */
function levelsOf(flags: Flags, known: string[]): string[] {
  if (flags.level === undefined) {
    const main = process.env['MINIGPT4_CPU_LEVEL'] || known.at(-1)!;
    if (!known.includes(main)) {
      const expected = `one of ${known.join(', ')}, which this machine has`;
      throw new MiniGptError('ERR_ARGUMENT', `bench: MINIGPT4_CPU_LEVEL: expected ${expected}, found "${main}"`);
    }
    const others = known.filter((level) => level !== main && level !== 'scalar').reverse();
    return [main, ...(flags.quick ? [] : others)];
  }
  const wanted = [...new Set(flags.level.split(',').map((level) => level.trim()))];
  for (const level of wanted) {
    if (known.includes(level)) continue;
    const meant = nearest(level, known);
    throw wrong(
      '--level',
      `some of ${known.join(', ')}, which this machine has, found "${level}"${meant ? ` (did you mean ${meant}?)` : ''}`,
    );
  }
  return wanted;
}

async function benchSuite(flags: Flags): Promise<void> {
  const [{ addon }, { ALL_MODELS, QUICK_MODELS, parseModels }, { runSuite }, { peerFolderIn }] = await Promise.all([
    import('../addon.js'),
    import('../bench/plan.js'),
    import('../bench/suite.js'),
    import('../bench/peers.js'),
  ]);
  const quick = flags.quick === true;
  const models = parseModels(flags.models ?? (quick ? QUICK_MODELS : ALL_MODELS), '--models');
  const levels = levelsOf(flags, addon.cpuLevels());
  if (flags.out !== undefined) await checkPlace(flags.out);
  const signal = interruptSignal();
  try {
    const { record, failed } = await runSuite({
      ...{ models, levels, quick, signal, tell: say },
      threads: flags.threads ?? availableParallelism(),
      peers: flags.peers === true,
      busy: flags.busy === true,
      repeat: flags.repeat ?? REPEAT[quick ? 'quick' : 'full'],
      peerFolder: peerFolderIn(flags.peerFolder),
      ...(flags.folder === undefined ? {} : { folder: flags.folder }),
    });
    const { textOf } = await import('../bench/table.js');
    process.stdout.write(flags.json ? jsonLine(record) : textOf(record));
    if (failed) process.exitCode = exitCodes.failed;
    if (flags.out !== undefined) {
      const { recordText } = await import('../bench/record.js');
      const path = recordPath(flags.out, record.date);
      await writeFile(path, recordText(record));
      say(`record: ${path}`);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = exitCodes.interrupted;
    say('minigpt4: interrupted; nothing was recorded');
  }
}

/** A record that cannot be written is found out before half an hour of measuring. What is named like a folder becomes one. */
async function checkPlace(out: string): Promise<void> {
  if (out === '') throw wrong('--out', 'a file or a folder, found no name');
  if (out.endsWith('/') || out.endsWith(sep)) await makeFolders(out);
  const place = existsSync(out) ? out : dirname(resolve(out));
  await access(place, constants.W_OK).catch((error: Error) => {
    throw new MiniGptError(
      toMiniGptError(error).code,
      `--out: expected a file or a folder that can be written, found ${place}: ${error.message}`,
      { cause: error },
    );
  });
}

const isFolder = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();

/** In a folder a file named by the day; one of the same day stays. */
function recordPath(out: string, date: string): string {
  if (!isFolder(out)) return out;
  for (let turn = 1; ; turn++) {
    const path = join(out, `bench-${date.slice(0, 10)}${turn > 1 ? `-${turn}` : ''}.json`);
    if (!existsSync(path)) return path;
  }
}

// ---------------------------------------------------------------- one's own model

async function benchModel(flags: Flags, given: (name: keyof Flags) => boolean): Promise<void> {
  const { measureModel, onCpu } = await import('../bench/one-model.js');
  const { model, llm } = flags;
  const { done, ...progress } = loadingProgress(llm ?? model);
  const count = (name: 'prompt' | 'generate') => ({ count: flags[name], asked: given(name) });
  const report = await measureModel(
    {
      ...modelFlags(flags),
      ...(flags.level === undefined ? {} : { cpuLevel: flags.level }),
      ...progress,
    } as NativeLoadOptions,
    { prompt: count('prompt'), generate: count('generate'), repeat: flags.repeat ?? REPEAT.full, onLoaded: done },
  )
    .catch(inFlags)
    .finally(done);
  if (flags.json) process.stdout.write(jsonLine(report));
  else print(report, onCpu(report.device));
}

function told({ gpu, host }: ModelReport['memory']): string {
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  if (gpu === 0) return mebibytes(host);
  return `${mebibytes(gpu)} of the GPU's memory${host === 0 ? '' : ` and ${mebibytes(host)} of the machine's`}`;
}

function print({ model, path, device, machine, loadMs, memory, results }: ModelReport, onCpu: boolean): void {
  const on = onCpu ? `${machine.cpu} (${device})` : device;
  const lines = [
    `${model || basename(path)} on ${on}: loaded in ${(loadMs / 1000).toFixed(2)} s, holds ${told(memory)}`,
    `${'test'.padEnd(8)}${'median'.padStart(12)}${'rate'.padStart(22)}${'weights read'.padStart(16)}`,
  ];
  for (const { test, medianMs, perSecond, unit, gigabytesPerSecond } of results) {
    lines.push(
      test.padEnd(8) +
        `${medianMs.toFixed(1)} ms`.padStart(12) +
        `${perSecond.toFixed(1)} ${unit}`.padStart(22) +
        (gigabytesPerSecond === undefined ? '' : `${gigabytesPerSecond.toFixed(2)} GB/s`).padStart(16),
    );
  }
  process.stdout.write(`${lines.join('\n')}\n`);
}
