// `minigpt4 chat`: a conversation about pictures, typed or piped in line by line.
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import type { Chat } from '../chat.js';
import { MiniGptError } from '../errors.js';
import { nearest } from '../nearest.js';
import { checkLoad } from '../load-options.js';
import { chatRules, checkOptions } from '../options.js';
import type { Run } from '../run.js';
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

type Flags = ModelFlags & PictureFlags & GenerateFlags & { image?: string[]; json?: boolean };

const help = `/image FILE  show a picture; the next question is about it
/restart     forget the conversation and its pictures
/help        this list
/exit        leave (so do Ctrl-D, and Ctrl-C where nothing is being answered)
Everything else is a question.`;

export function register(program: Command): void {
  const command = program
    .command('chat')
    .summary('a conversation about pictures')
    .description(
      `A conversation of several turns about pictures. From a pipe, every line is a question or one of these:\n\n${help}`,
    );
  addModelFlags(command).option(
    '--image <picture>',
    'a picture to begin with (may be given several times)',
    (picture: string, all: string[] = []) => [...all, picture],
  );
  addPictureFlags(command);
  addGenerateFlags(command)
    .option('--json', 'one JSON object an answer')
    .addHelpText(
      'after',
      `
Examples:
  $ minigpt4 chat --image photo.jpg
  $ printf '/image photo.jpg\\nWhat is this?\\nWhat colour is it?\\n' | minigpt4 chat --temperature 0`,
    )
    .action(chat);
}

async function chat(flags: Flags): Promise<void> {
  const options = checkOptions(chatRules, generateFlags(flags), 'chat', flagOf);
  const load = checkLoad(modelFlags(flags), 'chat', flagOf);
  const { MiniGPT4 } = await import('../model.js');
  const { done, ...progress } = loadingProgress(flags.model);
  const model = await MiniGPT4.load({ ...load, ...progress })
    .catch(inFlags)
    .finally(done);
  try {
    if (!flags.json) tellMiniature(model);
    const conversation = new Conversation(model.chat(options), flags.json === true);
    for (const picture of flags.image ?? []) await conversation.act(`/image ${picture}`);
    await converse(conversation);
  } finally {
    await model.close();
  }
}

/** Reads lines until the end, /exit, or Ctrl-C at the prompt. */
async function converse(conversation: Conversation): Promise<void> {
  const typed = process.stdin.isTTY === true && process.stdout.isTTY === true;
  const lines = typed
    ? createInterface({ input: process.stdin, output: process.stdout, prompt: '> ' })
    : createInterface({ input: process.stdin, terminal: false });
  const interrupted = interruptSignal();
  interrupted.addEventListener('abort', () => {
    process.exitCode = exitCodes.interrupted;
    conversation.abort();
    lines.close();
  });
  lines.on('SIGINT', () => {
    // a terminal in raw mode gives Ctrl-C to readline, not to the process
    if (!conversation.abort()) lines.close();
  });
  if (typed) {
    say('Ask about a picture; /help lists the commands.');
    lines.prompt();
  }
  for await (const line of lines) {
    const goOn = await conversation.act(line.trim());
    if (!goOn || interrupted.aborted) break;
    if (typed) lines.prompt();
  }
  lines.close();
  if (typed) process.exitCode = 0; // what went wrong was said, and dealt with
}

/** Carries out lines; what goes wrong is told and the conversation goes on. */
class Conversation {
  #run: Run | undefined;
  readonly #chat: Chat;
  readonly #json: boolean;

  constructor(chat: Chat, json: boolean) {
    this.#chat = chat;
    this.#json = json;
  }

  /** Ends the answer that is coming, if one is. */
  abort(): boolean {
    this.#run?.abort();
    return this.#run !== undefined;
  }

  /** Returns whether the conversation goes on. */
  async act(line: string): Promise<boolean> {
    if (line === '') return true;
    try {
      return await (line.startsWith('/') ? this.#command(line) : this.#ask(line));
    } catch (error) {
      process.exitCode ||= exitCodes.failed;
      if (this.#json) process.stdout.write(jsonLine(errorObject(error)));
      else say(`minigpt4: ${errorObject(error).error.message}`);
      return true;
    }
  }

  async #command(line: string): Promise<boolean> {
    const [, name = '', rest = ''] = /^(\/\S*)\s*(.*)$/s.exec(line) ?? [];
    switch (name) {
      case '/image':
        if (rest === '') throw new MiniGptError('ERR_ARGUMENT', '/image: expected a file after it');
        // people paste quoted paths
        await this.#chat.image(rest.replace(/^(['"])(.*)\1$/, '$2'));
        return true;
      case '/restart':
        this.#chat.restart();
        return true;
      case '/help':
        say(help);
        return true;
      case '/exit':
      case '/quit':
        return false;
      default: {
        const known = ['/image', '/restart', '/help', '/exit'];
        const meant = nearest(name, known);
        throw new MiniGptError(
          'ERR_ARGUMENT',
          `unknown command ${name}; ${meant ? `did you mean ${meant}?` : `expected one of ${known.join(', ')}`}`,
        );
      }
    }
  }

  async #ask(question: string): Promise<boolean> {
    const run = (this.#run = this.#chat.ask(question));
    try {
      if (this.#json) {
        const { text, ids, finishReason, usage, timings, seed } = await run;
        process.stdout.write(jsonLine({ question, text, ids, finishReason, usage, timings, seed }));
        return true;
      }
      let ended = '\n';
      try {
        for await (const piece of run) writeText(piece);
      } catch (error) {
        ended = process.stdout.isTTY ? '\n' : ''; // a half line stays on a terminal only
        throw error;
      } finally {
        process.stdout.write(ended);
      }
      return true;
    } finally {
      this.#run = undefined;
    }
  }
}
