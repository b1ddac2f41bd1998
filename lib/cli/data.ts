// `minigpt4 data doctor | build | align`: checks data sets, makes shards of them, and makes stage-2 data with a stage-1 model.
import { InvalidArgumentError, type Command } from 'commander';
import type { AlignOptions, AlignResult, AlignSummary, RefinerOptions } from '../data/align.js';
import type { BuildOptions, BuildResult } from '../data/make-shards.js';
import type { DoctorOptions } from '../data/doctor.js';
import { MiniGptError, toMiniGptError } from '../errors.js';
import { checkLoad } from '../load-options.js';
import { checkOptions, loadRules } from '../options.js';
import {
  addModelFlags,
  addPictureFlags,
  errorObject,
  exitCodes,
  flagOf,
  inFlags,
  jsonLine,
  modelFlags,
  parseNumber,
  type ModelFlags,
  type PictureFlags,
} from './program.js';
import { interruptSignal, loadingProgress, say, writeText } from './terminal.js';

export function register(program: Command): void {
  const data = program.command('data').summary('check, build and make training data').description('Training data.');
  registerDoctor(data);
  registerBuild(data);
  registerAlign(data);
}

const sources =
  'shards ({00000..00012}.tar), a tar, a folder of tars, a cc_sbu_align folder, LLaVA JSON, a CSV or JSONL list';

// ---------------------------------------------------------------- doctor

interface DoctorFlags extends Omit<DoctorOptions, 'path' | 'maxTextLength' | 'endSign' | 'caption' | 'signal'> {
  maxTxtLen?: number;
  endSym?: string;
  textProcessor?: string;
  json?: boolean;
}

function registerDoctor(data: Command): void {
  const command = data
    .command('doctor')
    .summary('check a data set before training')
    .description(
      'Reads and decodes everything as training would, and reports what it would pass over and what is worth a look.',
    )
    .argument('<path>', sources)
    .option('--format <name>', 'webdataset, cc_sbu_align, llava or list (default: what it looks like)')
    .option('--images <dir>', "folder that a list's picture paths are relative to (default: the list's)")
    .option(
      '--max-txt-len <n>',
      'tokens of a caption at most (default: 32 for a webdataset, otherwise 160)',
      parseWhole,
    )
    .option('--end-sym <text>', 'end sign of a caption (default: a line break for a webdataset, otherwise ###)')
    .option('--text-processor <name>', 'blip_caption or none (default: blip_caption for a webdataset)')
    .option('--model <file>', 'GGUF file or tokenizer.model that counts tokens (default: the embedded miniature)')
    .option('--limit <n>', 'look at the first n pairs', parseWhole)
    .option('--examples <n>', 'name so many pairs of each finding (default: 5)', parseWhole)
    .option('--small-side <n>', 'tell pictures whose shorter side has fewer pixels (default: 64)', parseWhole);
  addPictureFlags(command)
    .option('--json', 'the report as one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 data doctor 'laion_dataset/{00000..10488}.tar' --limit 10000
  $ minigpt4 data doctor cc_sbu_align/ --model vicuna-7b.gguf

Exit codes: 0 training would use everything, 1 it would pass something over, 2 wrong use, 130 interrupted (the report is of the pairs up to there).`,
    )
    .action(runDoctor);
}

async function runDoctor(path: string, flags: DoctorFlags): Promise<void> {
  const { maxTxtLen, endSym, textProcessor, json, ...options } = flags;
  checkOptions(
    loadRules,
    options.maxPixels === undefined ? {} : { maxPixels: options.maxPixels },
    'data doctor',
    flagOf,
  );
  const signal = interruptSignal();
  const { doctor, hasSkipped } = await import('../data/doctor.js');
  const { reportText } = await import('../data/doctor-report.js');
  const progress = counter(json);
  const report = await doctor({
    ...options,
    path,
    ...(maxTxtLen === undefined ? {} : { maxTextLength: maxTxtLen }),
    ...(endSym === undefined ? {} : { endSign: endSym }),
    ...(textProcessor === undefined ? {} : { caption: captionRule(textProcessor) }),
    signal,
    onProgress: (pairs) => progress.update(`${pairs} pairs`),
  }).finally(progress.done);
  process.stdout.write(json ? jsonLine(report) : reportText(report));
  if (signal.aborted) process.exitCode = exitCodes.interrupted;
  else if (hasSkipped(report)) process.exitCode = exitCodes.failed;
}

function captionRule(name: string): { maxWords: number; prompt: string } | false {
  if (name === 'none') return false;
  if (name === 'blip_caption') return { maxWords: 50, prompt: '' };
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `--text-processor: expected blip_caption or none, found ${JSON.stringify(name)}`,
  );
}

// ---------------------------------------------------------------- build

interface BuildFlags extends Omit<BuildOptions, 'list' | 'out' | 'signal' | 'onSkip' | 'onProgress'> {
  out?: string;
  json?: boolean;
}

function registerBuild(data: Command): void {
  const command = data
    .command('build')
    .summary('make WebDataset shards from a list')
    .description(
      'Makes shards of KEY.jpg (png, webp) and KEY.json. Pictures are copied bit for bit unless they are to be resized or are of another kind. ' +
        'Broken pairs are named and passed over.',
    )
    .argument('<list>', sources)
    .option('--out <pattern>', 'folder, or names as FOLDER/{00000..}.tar (needed)')
    .option('--format <name>', 'webdataset, cc_sbu_align, llava or list (default: what it looks like)')
    .option('--images <dir>', "folder that a list's picture paths are relative to (default: the list's)")
    .option('--pairs-per-shard <n>', 'pairs of a shard at most (default: 10000)', parseWhole)
    .option('--shard-size <bytes>', 'begin a new shard at so many bytes, as 500M or 1G', parseBytes)
    .option('--resize <n>', 'make pictures smaller: pixels of a side', parseWhole)
    .option(
      '--resize-mode <mode>',
      'keep (the shorter side, never enlarged), squash (a square), border (in a white square, as img2dataset does) (default: keep)',
    )
    .option('--quality <n>', 'of JPEG files that are made, 1 to 100 (default: 95)', parseWhole)
    .option('--resume', 'go on with a run that was cut short')
    .option('--force', 'replace shards that are there');
  addPictureFlags(command)
    .option('--json', 'one JSON object: storage, shards, pairs, skipped, bytes')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 data build pairs.csv --out shards/
  $ minigpt4 data build llava.json --images coco/ --out 'shards/{00000..}.tar' --resize 224 --resize-mode border`,
    )
    .action(runBuild);
}

async function runBuild(list: string, { json, out, ...flags }: BuildFlags): Promise<void> {
  if (out === undefined)
    throw new MiniGptError('ERR_ARGUMENT', '--out: expected a folder or names as FOLDER/{00000..}.tar, found none');
  const { checkBuildOptions } = await import('../data/make-shards-options.js');
  const options = checkBuildOptions({ ...flags, list, out }, 'data build', flagOf);
  const signal = interruptSignal();
  const { build } = await import('../data/make-shards.js');
  const progress = counter(json);
  let result: BuildResult;
  try {
    result = await build({
      ...options,
      signal,
      onSkip: (name, reason) => {
        progress.done();
        say(`passed over: ${printable(`${name}: ${reason}`)}`);
      },
      onProgress: (pairs, shards) => progress.update(`${pairs} pairs, ${shards} shards`),
    });
  } catch (error) {
    if (!signal.aborted) throw error;
    progress.done();
    process.exitCode = exitCodes.interrupted;
    if (json) process.stdout.write(jsonLine(errorObject(error)));
    else say('minigpt4: interrupted; whole shards stay, and --resume goes on after them');
    return;
  } finally {
    progress.done();
  }
  if (json) {
    process.stdout.write(jsonLine(result));
    return;
  }
  const { storage, shards, pairs, skipped, bytes } = result;
  process.stdout.write(
    `${pairs} pairs in ${shards} shard${shards === 1 ? '' : 's'}, ${(bytes / 1e6).toFixed(1)} MB; ${skipped} passed over\n` +
      `storage: ${storage}\n`,
  );
}

// ---------------------------------------------------------------- align

type AlignFlags = ModelFlags &
  PictureFlags &
  Pick<
    AlignOptions,
    | 'count'
    | 'seed'
    | 'prompt'
    | 'continueUpTo'
    | 'temperature'
    | 'maxTokens'
    | 'template'
    | 'atOnce'
    | 'requests'
    | 'saveEvery'
  > & {
    out?: string;
    refine: boolean;
    refineUrl?: string;
    refineModel?: string;
    refineTemperature?: number;
    refineMaxTokens?: number;
    refineTimeout?: number;
    refineAttempts?: number;
    dropPhrase?: string[];
    json?: boolean;
  };

function registerAlign(data: Command): void {
  const command = data
    .command('align')
    .summary('make stage-2 data with a stage-1 model')
    .description(
      'Describes pictures with the stage-1 model, has a language model put the descriptions right, drops those that failed, and writes a ' +
        'cc_sbu_align folder. Every step is recorded in DIR/record.jsonl: the same command again goes on where the last one stopped.',
    )
    .argument('<pictures>', `a folder of pictures, a .txt list of paths, or a data set: ${sources}`)
    .option('--out <dir>', 'folder to write (needed)')
    .option(
      '--refine-url <url>',
      'OpenAI-compatible interface, as https://host/v1; the key is taken from MINIGPT4_REFINE_KEY or OPENAI_API_KEY',
    )
    .option('--refine-model <name>', "the server's model")
    .option('--no-refine', 'take the descriptions as they are')
    .option('--refine-temperature <n>', 'default: 0.7', parseNumber)
    .option('--refine-max-tokens <n>', 'tokens of a reply at most (default: 200)', parseNumber)
    .option('--refine-timeout <seconds>', 'for one reply (default: 120)', parseNumber)
    .option('--refine-attempts <n>', 'requests for one description at most (default: 6)', parseNumber)
    .option('--requests <n>', 'requests at once (default: 4)', parseNumber)
    .option('--count <n>', 'draw so many pictures at random (default: all)', parseNumber)
    .option('--seed <n>', 'of the draw and of the descriptions (default: 42)', parseNumber)
    .option('--prompt <text>', "what the stage-1 model is asked (default: the paper's)")
    .option(
      '--continue-up-to <n>',
      'ask to continue after descriptions of up to so many tokens (default: 80)',
      parseNumber,
    )
    .option('--temperature <n>', '0 = greedy (default: 1)', parseNumber)
    .option('--max-tokens <n>', 'tokens of a description at most (default: 300)', parseNumber)
    .option('--template <name>', 'conversation template (default: the words of training)')
    .option('--at-once <n>', 'pictures described at once (default: 4)', parseNumber)
    .option('--save-every <n>', 'write the captions after so many new ones, and at the end (default: 50)', parseNumber)
    .option(
      '--drop-phrase <text>',
      'drop captions with these words too (may be given several times)',
      (text: string, all: string[] = []) => [...all, text],
    );
  addPictureFlags(addModelFlags(command))
    .option('--json', 'the summary as one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 data align photos/ --model minigpt4.gguf --projection stage1.gguf --count 5000 --out align/ \\
      --refine-url https://api.openai.com/v1 --refine-model gpt-4o-mini
  $ minigpt4 data align photos/ --out align/               (describes only; the same with --refine-url goes on)
  $ minigpt4 data align photos/ --out align/ --no-refine`,
    )
    .action(runAlign);
}

async function runAlign(pictures: string, flags: AlignFlags): Promise<void> {
  if (flags.out === undefined)
    throw new MiniGptError('ERR_ARGUMENT', '--out: expected the folder to write, found none');
  const { checkAlignOptions } = await import('../data/align-options.js');
  const signal = interruptSignal();
  const { onProgress, done } = loadingProgress(flags.model);
  const { count, seed, prompt, continueUpTo, temperature, maxTokens, template, atOnce, requests, saveEvery } = flags;
  const refine = refineOf(flags);
  const given = {
    ...{ count, seed, prompt, continueUpTo, temperature, maxTokens, template, atOnce, requests, saveEvery },
    dropPhrases: flags.dropPhrase,
    maxPixels: flags.maxPixels,
    refine,
  };
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const options = checkAlignOptions({ ...set, pictures, out: flags.out }, 'data align', flagOf);
  const { maxPixels: _, ...load } = checkLoad(modelFlags(flags), 'data align', flagOf);
  const { align } = await import('../data/align.js');
  if (!flags.json && flags.model === undefined && !process.env['MINIGPT4_MODEL'])
    say(
      'The embedded miniature describes: it knows only simple scenes of pictograms. Give the stage-1 model with --model.',
    );
  const results = align({ ...options, model: { ...load, ...(onProgress ? { onProgress } : {}) }, signal });
  let summary: AlignSummary;
  try {
    for (;;) {
      const next = await results.next();
      done();
      if (next.done) {
        summary = next.value;
        break;
      }
      if (!flags.json) writeText(`${printable(resultLine(next.value))}\n`);
    }
  } catch (error) {
    done();
    if (!signal.aborted) inFlags(toMiniGptError(error));
    process.exitCode = exitCodes.interrupted;
    if (flags.json) process.stdout.write(jsonLine(errorObject(error)));
    else say('minigpt4: interrupted; what was done is recorded, and the same command goes on after it');
    return;
  }
  if (flags.json) process.stdout.write(jsonLine(summary));
  else process.stdout.write(summaryText(summary, flags.out, refine === undefined));
}

function refineOf(flags: AlignFlags): RefinerOptions | false | undefined {
  const { refineUrl, refineModel, refineTemperature, refineMaxTokens, refineTimeout, refineAttempts } = flags;
  if (refineUrl === undefined) return flags.refine ? undefined : false;
  if (!flags.refine) throw new MiniGptError('ERR_ARGUMENT', '--no-refine: expected no --refine-url beside it');
  if (refineModel === undefined)
    throw new MiniGptError('ERR_ARGUMENT', "--refine-model: expected the name of the server's model, found none");
  return {
    url: refineUrl,
    model: refineModel,
    ...(refineTemperature === undefined ? {} : { temperature: refineTemperature }),
    ...(refineMaxTokens === undefined ? {} : { maxTokens: refineMaxTokens }),
    ...(refineTimeout === undefined ? {} : { timeout: refineTimeout }),
    ...(refineAttempts === undefined ? {} : { attempts: refineAttempts }),
  };
}

function resultLine(result: AlignResult): string {
  const { name } = result;
  switch (result.outcome) {
    case 'kept':
      return `${name}: ${result.caption}`;
    case 'dropped':
      return `${name}: dropped (${result.rule})`;
    case 'described':
      return `${name}: described: ${result.description}`;
    case 'refused':
      return `${name}: refused: ${result.reason}`;
    case 'skipped':
      return `${name}: passed over: ${result.reason}`;
    case 'duplicate':
      return `${name}: the same picture as image/${result.id}.jpg`;
  }
}

function summaryText(summary: AlignSummary, out: string, onlyDescribed: boolean): string {
  const { pictures, skipped, duplicates, described, continued, refined, cut, refused, waiting, kept, dropped } =
    summary;
  const rules = Object.entries(dropped).map(([rule, count]) => `${count} ${rule}`);
  const sum = Object.values(dropped).reduce((total, count) => total + count, 0);
  return [
    `${pictures} pictures: ${skipped} passed over, ${duplicates} duplicates, ${described} described (${continued} continued)`,
    `${refined} refined (${cut} cut at the limit of tokens), ${refused} refused`,
    `${kept} kept, ${sum} dropped${rules.length ? ` (${rules.join(', ')})` : ''}`,
    ...(summary.captions === undefined ? [] : [`${out}: ${summary.captions} captions in filter_cap.json`]),
    ...(onlyDescribed && waiting > 0
      ? [
          `${waiting} descriptions wait: the same command with --refine-url goes on, with --no-refine takes them as they are`,
        ]
      : []),
    '',
  ].join('\n');
}

// ---------------------------------------------------------------- what they share

const parseWhole = (text: string): number => {
  const value = parseNumber(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('Expected a whole number from 1.');
  return value;
};

function parseBytes(text: string): number {
  const parts = /^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$/i.exec(text.trim());
  const bytes = parts ? Math.round(Number(parts[1]) * 1000 ** ' kmgt'.indexOf(parts[2]!.toLowerCase() || ' ')) : 0;
  if (!(bytes >= 1)) throw new InvalidArgumentError('Expected bytes, as 500M or 1G.');
  return bytes;
}

/** Names come from files that anybody may have made. */
const printable = (text: string): string => text.replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd');

/** A line on a terminal that tells how far the work is. */
function counter(quiet: boolean | undefined): { update(line: string): void; done(): void } {
  let shown = 0;
  if (quiet || !process.stderr.isTTY) return { update() {}, done() {} };
  return {
    update(line) {
      if (Date.now() - shown < 200) return;
      shown = Date.now();
      process.stderr.write(`\r\x1b[K${line}`);
    },
    done() {
      if (shown) process.stderr.write('\r\x1b[K');
      shown = 0;
    },
  };
}
