// A process that is measured: it does what its parent asks (measured-process.ts), one thing at a time, and ends with it.
import { MiniGptError } from '../errors.js';
import type { Test } from './measured-test.js';

/** What is loaded. Files that a program has no use for are left out. */
export interface Wish {
  llm?: string;
  vision?: string;
  /** A folder with an ONNX model, and the side of its pictures. */
  onnx?: { folder: string; imageSize: number };
  /** Where a peer is installed. */
  peerFolder?: string;
  threads: number;
  level?: string;
  /** Positions of one conversation, and of all together. */
  contextLength: number;
}

export interface Served {
  /** Milliseconds that loading took. */
  load(wish: Wish): Promise<number>;
  /** Milliseconds of one run. */
  run(test: Test, turn: number): Promise<number>;
}

/** `ready`: answered once the process has begun, with nothing. */
export type Question = { ready: true } | { load: Wish } | { run: Test; turn: number };
export type Answer = { value: number } | { error: { code: string; message: string } };

export function serve(served: Served): void {
  const answer = async (question: Question): Promise<Answer> => {
    try {
      if ('ready' in question) return { value: 0 };
      const value =
        'load' in question ? await served.load(question.load) : await served.run(question.run, question.turn);
      return { value };
    } catch (error) {
      const code = error instanceof MiniGptError ? error.code : 'ERR_INTERNAL';
      return { error: { code, message: error instanceof Error ? error.message : String(error) } };
    }
  };
  process.on('message', (question: Question) => void answer(question).then((words) => process.send!(words)));
  process.on('disconnect', () => process.exit());
}

/** For a peer: the tests that it is not asked for. */
export function notAsked(test: Test): never {
  throw new MiniGptError('ERR_INTERNAL', `a peer was asked for the test '${test.kind}', which it has no part in`);
}
