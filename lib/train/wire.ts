// JSON messages, one a line, over a socket: what the processes of a run say to each other besides their sums.
import type { Socket } from 'node:net';
import { z } from 'zod';

const rank = z.int().min(0);

const memberSchema = z.object({ rank, host: z.string(), pid: z.int() });

/** A process of the run. */
export type Member = z.infer<typeof memberSchema>;

const messageSchema = z.discriminatedUnion('kind', [
  /** The first word of everybody but rank 0. */
  memberSchema.extend({
    kind: z.literal('hello'),
    program: z.literal('minigpt4'),
    version: z.string(),
    run: z.string(),
    size: z.int(),
  }),
  z.object({ kind: z.literal('refused'), reason: z.string() }),
  /**
   * Everybody has come. `address`: what the receiver is to be reached at, where its own end of the connection is of no
   * use to others.
   */
  z.object({ kind: z.literal('welcome'), members: z.array(memberSchema), address: z.string().optional() }),
  /** A value for everybody, base64. */
  z.object({ kind: z.literal('share'), rank, key: z.string(), value: z.string() }),
  /** Ends as planned after so many sums, or with a failure. */
  z.object({ kind: z.literal('left'), rank, sums: z.int(), failure: z.string().optional() }),
  /** Ended without saying so. */
  z.object({ kind: z.literal('died'), rank }),
]);

export type Message = z.infer<typeof messageSchema>;

/** Characters of a line at most: a share of a few hundred bytes a process, for thousands of them. */
const longest = 4 * 1024 * 1024;

export class Wire {
  onMessage: (message: Message) => void = () => {};
  /** Called once, however the connection ends; `problem` where it was not in peace. */
  onClose: (problem?: string) => void = () => {};
  #problem: string | undefined;
  #text = '';

  constructor(readonly socket: Socket) {
    socket.setNoDelay(true);
    // finds a machine that has gone within half a minute, a busy process never
    socket.setKeepAlive(true, 10_000);
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#read(text));
    socket.on('error', (error) => (this.#problem ??= error.message));
    socket.on('close', () => this.onClose(this.#problem));
  }

  send(message: Message): void {
    if (this.socket.writable) this.socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Sends what is under way and closes. */
  end(): void {
    this.socket.end();
  }

  #read(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop()!;
    for (const line of lines) {
      let found: unknown;
      try {
        found = JSON.parse(line);
      } catch {
        return this.#refuse(line);
      }
      const message = messageSchema.safeParse(found);
      if (!message.success) return this.#refuse(line);
      this.onMessage(message.data);
      if (this.socket.destroyed) return;
    }
    if (this.#text.length > longest) this.#refuse(this.#text);
  }

  #refuse(line: string): void {
    this.#problem = `it sent ${JSON.stringify(line.slice(0, 60))}, expected a message of minigpt4`;
    this.socket.destroy();
  }
}
