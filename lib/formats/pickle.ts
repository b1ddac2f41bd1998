// Reads a pickle without running it: a machine with a stack and a memo, whose only "calls" are those that rebuild tensors
// and ordered dictionaries. Every other class becomes an opaque value; an opcode that is not listed here is an error.
import { MiniGptError } from '../errors.js';

/** A class or function by name; never looked up, let alone called. */
export class PickleGlobal {
  constructor(
    readonly module: string,
    readonly name: string,
  ) {}
  get path(): string {
    return `${this.module}.${this.name}`;
  }
}

/** An instance of something this reader does not know. */
export class PickleOpaque {
  state: unknown = undefined;
  constructor(
    readonly made: PickleGlobal | undefined,
    readonly args: unknown,
  ) {}
}

/** Dictionaries are Maps, lists and tuples arrays, None is null, sets are Sets, long integers beyond 2^53 bigint. */
export type PickleValue = unknown;

export interface PickleHooks {
  /** What a persistent id (a tuple in torch's files) stands for. */
  persistent(id: PickleValue): PickleValue;
  /** The result of calling `callee`, or undefined where it is not known (the value becomes opaque). */
  call(callee: PickleGlobal, args: readonly PickleValue[]): PickleValue | undefined;
}

// A state dict of 10,000 tensors makes about 80,000 containers; limits a hundred times below what ends a process.
const MOST_CONTAINERS = 500_000;
const MOST_STACK = 1_000_000;
const LONGEST_INTEGER = 256;

const MARK = Symbol('mark');

/** Reads one pickle. `what` names it in errors. Errors: ERR_FILE_FORMAT with the opcode and its offset. */
export function readPickle(bytes: Uint8Array, what: string, hooks: PickleHooks): PickleValue {
  return new Machine(bytes, what, hooks).run();
}

class Machine {
  readonly #bytes: Buffer;
  readonly #what: string;
  readonly #hooks: PickleHooks;
  readonly #memo = new Map<number, PickleValue>();
  readonly #stack: PickleValue[] = [];
  readonly #marks: number[] = [];
  #at = 0;
  #opcodeAt = 0;
  #containers = 0;

  constructor(bytes: Uint8Array, what: string, hooks: PickleHooks) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
    this.#hooks = hooks;
  }

  run(): PickleValue {
    for (;;) {
      this.#opcodeAt = this.#at;
      const opcode = this.#take(1)[0]!;
      if (opcode === 0x2e) return this.#pop(); // STOP
      this.#step(opcode);
      if (this.#stack.length > MOST_STACK) this.#fail(`its stack grows beyond ${MOST_STACK} values`);
    }
  }

  #step(opcode: number): void {
    switch (opcode) {
      case 0x80: {
        // PROTO
        const protocol = this.#unsigned(1);
        if (protocol > 5) this.#fail(`it has pickle protocol ${protocol}; 0 to 5 are known`);
        return;
      }
      case 0x95:
        this.#take(8);
        return; // FRAME: only tells how much to buffer
      // stack
      case 0x28:
        this.#marks.push(this.#stack.length);
        this.#push(MARK);
        return; // MARK
      case 0x30:
        this.#pop();
        return; // POP
      case 0x31:
        this.#popMark();
        return; // POP_MARK
      case 0x32:
        this.#push(this.#top());
        return; // DUP
      // constants
      case 0x4e:
        this.#push(null);
        return; // NONE
      case 0x88:
        this.#push(true);
        return; // NEWTRUE
      case 0x89:
        this.#push(false);
        return; // NEWFALSE
      case 0x4a:
        this.#push(this.#take(4).readInt32LE(0));
        return; // BININT
      case 0x4b:
        this.#push(this.#unsigned(1));
        return; // BININT1
      case 0x4d:
        this.#push(this.#unsigned(2));
        return; // BININT2
      case 0x8a:
        this.#push(this.#integer(this.#unsigned(1)));
        return; // LONG1
      case 0x8b:
        this.#push(this.#integer(this.#unsigned(4)));
        return; // LONG4
      case 0x47:
        this.#push(this.#take(8).readDoubleBE(0));
        return; // BINFLOAT
      // strings and bytes
      case 0x8c:
        this.#push(this.#text(this.#unsigned(1)));
        return; // SHORT_BINUNICODE
      case 0x58:
        this.#push(this.#text(this.#unsigned(4)));
        return; // BINUNICODE
      case 0x8d:
        this.#push(this.#text(this.#unsigned(8)));
        return; // BINUNICODE8
      case 0x55:
        this.#push(this.#text(this.#unsigned(1)));
        return; // SHORT_BINSTRING (Python 2)
      case 0x54:
        this.#push(this.#text(this.#unsigned(4)));
        return; // BINSTRING (Python 2)
      case 0x43:
        this.#push(this.#take(this.#unsigned(1)));
        return; // SHORT_BINBYTES
      case 0x42:
        this.#push(this.#take(this.#unsigned(4)));
        return; // BINBYTES
      case 0x8e:
      case 0x96:
        this.#push(this.#take(this.#unsigned(8)));
        return; // BINBYTES8, BYTEARRAY8
      // containers
      case 0x5d:
        this.#push(this.#container([]));
        return; // EMPTY_LIST
      case 0x29:
        this.#push(this.#container([]));
        return; // EMPTY_TUPLE
      case 0x7d:
        this.#push(this.#container(new Map()));
        return; // EMPTY_DICT
      case 0x8f:
        this.#push(this.#container(new Set()));
        return; // EMPTY_SET
      case 0x6c:
      case 0x74:
        this.#push(this.#container(this.#popMark()));
        return; // LIST, TUPLE
      case 0x64: {
        // DICT
        const map = this.#container(new Map<PickleValue, PickleValue>());
        this.#setItems(map, this.#popMark());
        this.#push(map);
        return;
      }
      case 0x91:
        this.#push(this.#container(new Set(this.#popMark())));
        return; // FROZENSET
      case 0x85:
        this.#tuple(1);
        return; // TUPLE1
      case 0x86:
        this.#tuple(2);
        return; // TUPLE2
      case 0x87:
        this.#tuple(3);
        return; // TUPLE3
      case 0x61:
        this.#append([this.#pop()]);
        return; // APPEND
      case 0x65:
        this.#append(this.#popMark());
        return; // APPENDS
      case 0x90:
        this.#append(this.#popMark());
        return; // ADDITEMS
      case 0x73: {
        // SETITEM
        const value = this.#pop();
        const key = this.#pop();
        this.#setItems(this.#top(), [key, value]);
        return;
      }
      case 0x75: {
        // SETITEMS
        const items = this.#popMark();
        this.#setItems(this.#top(), items);
        return;
      }
      // memo
      case 0x71:
        this.#memo.set(this.#unsigned(1), this.#top());
        return; // BINPUT
      case 0x72:
        this.#memo.set(this.#unsigned(4), this.#top());
        return; // LONG_BINPUT
      case 0x94:
        this.#memo.set(this.#memo.size, this.#top());
        return; // MEMOIZE
      case 0x68:
        this.#get(this.#unsigned(1));
        return; // BINGET
      case 0x6a:
        this.#get(this.#unsigned(4));
        return; // LONG_BINGET
      // classes and objects
      case 0x63:
        this.#push(new PickleGlobal(this.#line(), this.#line()));
        return; // GLOBAL
      case 0x93: {
        // STACK_GLOBAL
        const name = this.#pop();
        const module = this.#pop();
        if (typeof name !== 'string' || typeof module !== 'string') this.#fail('a class name is not a string');
        this.#push(new PickleGlobal(module, name));
        return;
      }
      case 0x52:
      case 0x81: {
        // REDUCE, NEWOBJ
        const args = this.#pop();
        this.#push(this.#call(this.#pop(), args));
        return;
      }
      case 0x92: {
        // NEWOBJ_EX
        const named = this.#pop();
        const args = this.#pop();
        const made = this.#pop();
        this.#push(this.#container(new PickleOpaque(made instanceof PickleGlobal ? made : undefined, [args, named])));
        return;
      }
      case 0x62: {
        // BUILD
        const state = this.#pop();
        const object = this.#top();
        // What a known value is told beyond its construction (an OrderedDict's _metadata) says nothing about tensors.
        if (object instanceof PickleOpaque) object.state = state;
        return;
      }
      case 0x51:
        this.#push(this.#hooks.persistent(this.#pop()));
        return; // BINPERSID
      default:
        this.#fail(`the opcode 0x${opcode.toString(16).padStart(2, '0')} is not one that PyTorch's checkpoints have`);
    }
  }

  #call(callee: PickleValue, args: PickleValue): PickleValue {
    if (!(callee instanceof PickleGlobal)) return this.#container(new PickleOpaque(undefined, args));
    if (!Array.isArray(args)) this.#fail(`${callee.path} is called with something that is not a tuple`);
    const known = this.#hooks.call(callee, args);
    return this.#container(known === undefined ? new PickleOpaque(callee, args) : known);
  }

  #tuple(size: number): void {
    const items = new Array<PickleValue>(size);
    for (let i = size - 1; i >= 0; i--) items[i] = this.#pop();
    this.#push(this.#container(items));
  }

  #append(items: PickleValue[]): void {
    const target = this.#top();
    if (Array.isArray(target)) for (const item of items) target.push(item);
    else if (target instanceof Set) for (const item of items) target.add(item);
    else if (!(target instanceof PickleOpaque)) this.#fail('it appends to something that is not a list');
  }

  #setItems(target: PickleValue, items: PickleValue[]): void {
    if (items.length % 2) this.#fail('a dictionary gets a key without a value');
    if (target instanceof PickleOpaque) return; // a dictionary of a class of its own
    if (!(target instanceof Map)) this.#fail('it sets an item of something that is not a dictionary');
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
  }

  #get(index: number): void {
    if (!this.#memo.has(index)) this.#fail(`it asks for memo ${index}, which was never set`);
    this.#push(this.#memo.get(index));
  }

  #push(value: PickleValue): void {
    this.#stack.push(value);
  }

  #top(): PickleValue {
    if (!this.#stack.length || this.#stack.at(-1) === MARK) this.#fail('its stack is empty');
    return this.#stack.at(-1);
  }

  #pop(): PickleValue {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMark(): PickleValue[] {
    const from = this.#marks.pop();
    if (from === undefined) this.#fail('a mark is missing');
    const items = this.#stack.splice(from);
    items.shift(); // the mark
    return items;
  }

  #container<T>(value: T): T {
    if (++this.#containers > MOST_CONTAINERS) this.#fail(`it makes more than ${MOST_CONTAINERS} objects`);
    return value;
  }

  #take(count: number): Buffer {
    if (count > this.#bytes.length - this.#at) {
      this.#fail(`${count} bytes are to follow and ${this.#bytes.length - this.#at} do`);
    }
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }

  #unsigned(bytes: 1 | 2 | 4 | 8): number {
    const from = this.#take(bytes);
    return bytes === 8 ? Number(from.readBigUInt64LE(0)) : from.readUIntLE(0, bytes);
  }

  #integer(length: number): number | bigint {
    if (length > LONGEST_INTEGER) this.#fail(`an integer of ${length} bytes`);
    let value = 0n;
    for (const byte of Buffer.from(this.#take(length)).reverse()) value = (value << 8n) | BigInt(byte);
    value = BigInt.asIntN(length * 8, value);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  #text(length: number): string {
    return this.#take(length).toString('utf8');
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.#fail('a class name does not end');
    const line = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return line;
  }

  #fail(why: string): never {
    const opcode = this.#bytes[this.#opcodeAt];
    const where =
      opcode === undefined ? 'its end' : `opcode 0x${opcode.toString(16).padStart(2, '0')} at offset ${this.#opcodeAt}`;
    throw new MiniGptError('ERR_FILE_FORMAT', `${this.#what}: ${where} of the pickle: ${why}`);
  }
}
