#!/usr/bin/env node
// The command `minigpt4`. What only one command needs is loaded only when it runs.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CommanderError, type Command } from 'commander';
import { Program, errorObject, exitCodeOf, isTold, jsonLine } from './program.js';
import { endWhenReaderLeaves, say } from './terminal.js';

const commands: Record<string, () => Promise<{ register(program: Command): void }>> = {
  describe: () => import('./describe.js'),
  chat: () => import('./chat.js'),
  convert: () => import('./convert.js'),
  inspect: () => import('./inspect.js'),
  verify: () => import('./verify.js'),
  bench: () => import('./bench.js'),
  train: () => import('./train.js'),
  data: () => import('./data.js'),
  export: () => import('./export.js'),
  eval: () => import('./eval.js'),
};

const packageFile = join(fileURLToPath(import.meta.url), '../../../package.json');
const { version } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string };

async function main(words: string[]): Promise<void> {
  endWhenReaderLeaves();
  const program = new Program('minigpt4')
    .description('Chat about images with MiniGPT-4, and train it.')
    .version(version)
    .showHelpAfterError('(--help tells more)')
    .exitOverride();
  const named = words[0] !== undefined && Object.hasOwn(commands, words[0]) ? [words[0]] : Object.keys(commands);
  for (const name of named) (await commands[name]!()).register(program);
  program.addHelpText(
    'after',
    `
Examples:
  $ minigpt4 describe photo.jpg
  $ minigpt4 describe --json --temperature 0 *.png
  $ minigpt4 chat --image photo.jpg
  $ minigpt4 train configs/sample.yaml
  $ minigpt4 COMMAND --help

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.`,
  );
  try {
    if (words.length === 0) program.error('error: expected a command', { code: 'commander.missing' });
    await program.parseAsync(words, { from: 'user' });
  } catch (error) {
    const code = exitCodeOf(error);
    process.exitCode = code;
    if (code === 0) return;
    if (words.includes('--json')) process.stdout.write(jsonLine(errorObject(error)));
    else if (!(error instanceof CommanderError) && !isTold(error)) say(`minigpt4: ${errorObject(error).error.message}`); // commander has told already
    if (process.env['MINIGPT4_DEBUG'] && error instanceof Error) say(error.stack ?? '');
  }
}

await main(process.argv.slice(2));
