// `minigpt4 describe PICTURE...`: asks about each picture, streaming to the terminal or one JSON object a line.
import type { Command } from 'commander';
import { checkLoad } from '../load-options.js';
import { checkOptions, describeRules } from '../options.js';
import {
  addGenerateFlags,
  addModelFlags,
  addPictureFlags,
  errorObject,
  exitCodes,
  flagOf,
  generateFlags,
  inFlags,
  jsonLine,
  modelFlags,
  type GenerateFlags,
  type ModelFlags,
  type PictureFlags,
} from './program.js';
import { interruptSignal, loadingProgress, say, tellMiniature, writeText } from './terminal.js';

type Flags = ModelFlags & PictureFlags & GenerateFlags & { prompt?: string; json?: boolean };

export function register(program: Command): void {
  const command = program
    .command('describe')
    .summary('describe pictures, or answer a question about each')
    .description(
      'Describes each picture, or answers a question about it. A picture is a file in any common format, a file: URL, a data: URI, ' +
        'or - for standard input.',
    )
    .argument('<picture...>', 'pictures');
  addModelFlags(command).option('--prompt <text>', 'the question (default: "Describe this image in detail.")');
  addPictureFlags(command);
  addGenerateFlags(command)
    .option('--json', 'one JSON object a picture: image, text, ids, finishReason, usage, timings')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 describe photo.jpg
  $ minigpt4 describe photo.jpg --prompt "What is in the corner?" --temperature 0
  $ minigpt4 describe --json --seed 7 *.jpg > answers.jsonl
  $ curl -s https://example.org/photo.jpg | minigpt4 describe -`,
    )
    .action(describe);
}

async function describe(pictures: string[], flags: Flags): Promise<void> {
  const options = checkOptions(
    describeRules,
    { ...generateFlags(flags), ...(flags.prompt === undefined ? {} : { prompt: flags.prompt }) },
    'describe',
    flagOf,
  );
  const load = checkLoad(modelFlags(flags), 'describe', flagOf);
  const signal = interruptSignal();
  const { MiniGPT4 } = await import('../model.js');
  const { done, ...progress } = loadingProgress(flags.model);
  const model = await MiniGPT4.load({ ...load, ...progress })
    .catch(inFlags)
    .finally(done);
  try {
    if (!flags.json) tellMiniature(model);
    for (const picture of pictures) {
      try {
        const run = model.describe(picture === '-' ? process.stdin : picture, { ...options, signal });
        if (flags.json) {
          const { text, ids, finishReason, usage, timings, seed } = await run;
          process.stdout.write(
            jsonLine({ image: picture, text, ids, finishReason, usage, timings, seed, model: model.info.name }),
          );
        } else {
          let first = true;
          for await (const piece of run) {
            if (first && pictures.length > 1) process.stdout.write(`${picture}: `);
            first = false;
            writeText(piece);
          }
          process.stdout.write('\n');
        }
      } catch (error) {
        process.exitCode = signal.aborted ? exitCodes.interrupted : exitCodes.failed;
        if (flags.json) process.stdout.write(jsonLine({ image: picture, ...errorObject(error) }));
        else say(`${process.stdout.isTTY ? '\n' : ''}minigpt4: ${errorObject(error).error.message}`);
        if (signal.aborted) break;
      }
    }
  } finally {
    await model.close();
  }
}
