// `minigpt4 eval scenes DIR`: how well projections name what is in scenes of known things, as a table.
import type { Command } from 'commander';
import { MiniGptError } from '../errors.js';
import type { SceneResult } from '../eval/evaluate-scenes.js';
import type { Summary } from '../eval/scenes.js';
import { checkOptions, loadRules, show } from '../options.js';
import { errorObject, exitCodes, flagOf, jsonLine, parseNumber } from './program.js';
import { interruptSignal, say } from './terminal.js';

interface Flags {
  model?: string;
  projection?: string[];
  untrained?: boolean;
  limit?: number;
  only?: string;
  threads?: number;
  json?: boolean;
}

export function register(program: Command): void {
  const evaluation = program.command('eval').summary('judge answers about pictures whose contents are known');
  evaluation
    .command('scenes')
    .description(
      'Asks about every scene of a folder, greedily, and counts what the answers name: the largest object, all objects, things that are not ' +
        "there, the background's colour, and answers that are none.",
    )
    .argument('<dir>', 'folder with scenes.json and scenes/')
    .option('--model <file>', 'bundle or vision file (default: MINIGPT4_MODEL, or else the embedded miniature)')
    .option(
      '--projection <file...>',
      "projections to compare: GGUF, .pth, checkpoints or folders of runs (default: the model's own)",
    )
    .option('--untrained', 'also a projection that was never trained')
    .option('--limit <n>', 'scenes of each style at most', parseNumber)
    .option('--only <style>', "one style's scenes: seen or held-out")
    .option('--threads <n>', "threads that compute (default: the machine's cores)", parseNumber)
    .option('--json', 'one JSON object a projection: projection, summaries, answers')
    .addHelpText(
      'after',
      `
An answer fails that has under four words (short), no end within 90 tokens (unfinished), more than three four-word runs that stood in it
before (repetitive), or does not begin with a capital and end with a stop (malformed).

Examples:
  $ minigpt4 eval scenes world/eval
  $ minigpt4 eval scenes world/eval --untrained --projection stage1.pth --projection output/stage2/best`,
    )
    .action(run);
}

async function run(folder: string, flags: Flags): Promise<void> {
  const { threads } = checkOptions(
    loadRules,
    flags.threads === undefined ? {} : { threads: flags.threads },
    'eval scenes',
    flagOf,
  );
  const { json, threads: _, ...wanted } = flags;
  if (wanted.limit !== undefined && (!Number.isInteger(wanted.limit) || wanted.limit < 1))
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `eval scenes: option --limit: expected a whole number from 1, found ${show(wanted.limit)}`,
    );
  const { evaluateScenes } = await import('../eval/evaluate-scenes.js');
  const { projection: projections, ...rest } = wanted;
  const signal = interruptSignal();
  const shown = process.stderr.isTTY && !json;
  try {
    const results = await evaluateScenes({
      folder,
      ...rest,
      ...(projections === undefined ? {} : { projections }),
      ...(threads === undefined ? {} : { threads }),
      signal,
      ...(shown
        ? { onProgress: (done, total, name) => process.stderr.write(`\r\x1b[K${done} of ${total} answers (${name})`) }
        : {}),
    });
    if (shown) process.stderr.write('\r\x1b[K');
    if (json) for (const result of results) process.stdout.write(jsonLine(result));
    else process.stdout.write(table(results));
  } catch (error) {
    if (shown) process.stderr.write('\r\x1b[K');
    if (!signal.aborted) throw error;
    process.exitCode = exitCodes.interrupted;
    if (json) process.stdout.write(jsonLine(errorObject(error)));
    else say('minigpt4: interrupted');
  }
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** Lines of a Markdown table, whose columns stand below each other. */
function table(results: readonly SceneResult[]): string {
  const columns: [string, (result: SceneResult, summary: Summary) => string][] = [
    ['projection', ({ projection }) => projection],
    ['style', (_, { style }) => style],
    ['scenes', (_, { scenes }) => String(scenes)],
    ['main object named', (_, { mainNamed }) => percent(mainNamed)],
    ['objects named', (_, { objectsNamed }) => percent(objectsNamed)],
    ['wrong objects a scene', (_, { wrongObjectsPerScene }) => wrongObjectsPerScene.toFixed(2)],
    ['background colour', (_, { backgroundNamed }) => percent(backgroundNamed)],
    ['failures', (_, summary) => failureText(summary)],
  ];
  const lines = [
    columns.map(([head]) => head),
    columns.map(([head]) => '-'.repeat(head.length)),
    ...results.flatMap((result) => result.summaries.map((summary) => columns.map(([, cell]) => cell(result, summary)))),
  ];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
  return lines
    .map((line, row) => `| ${line.map((cell, i) => cell.padEnd(widths[i]!, row === 1 ? '-' : ' ')).join(' | ')} |\n`)
    .join('');
}

function failureText({ failed, failures }: Summary): string {
  const kinds = Object.entries(failures).map(([kind, count]) => `${count} ${kind}`);
  return kinds.length ? `${percent(failed)} (${kinds.join(', ')})` : percent(failed);
}
