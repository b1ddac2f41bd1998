// Comma-separated values as RFC 4180 has them, read in pieces so that a list may be longer than a string.

/** One record, and the line that it began on. */
export interface CsvRow {
  line: number;
  fields: string[];
  /** A closing quote with something behind it. */
  problem?: string;
  /** A quote that does not close: all that follows is in this record. */
  unclosed?: true;
}

/** The records of a text that comes in pieces of any length; empty lines are none. Lines end with \n or \r\n, quoted fields may hold them. */
export async function* csvRows(pieces: AsyncIterable<string>): AsyncGenerator<CsvRow> {
  let line = 1;
  let row: CsvRow = { line, fields: [] };
  let field = '';
  let where: 'start' | 'plain' | 'quoted' | 'closed' = 'start';
  let begun = false;
  const end = () => {
    row.fields.push(where === 'plain' ? field.replace(/\r$/, '') : field);
    [field, where] = ['', 'start'];
  };
  for await (const piece of pieces) {
    for (const char of piece) {
      if (char === '\n') line++;
      if (where === 'quoted') {
        if (char === '"') where = 'closed';
        else field += char;
      } else if (char === '"' && where === 'closed') {
        field += '"'; // two quotes are one
        where = 'quoted';
      } else if (char === '"' && where === 'start') {
        [where, begun] = ['quoted', true];
      } else if (char === ',') {
        end();
        begun = true;
      } else if (char === '\n') {
        if (begun) {
          end();
          yield row;
        }
        row = { line, fields: [] };
        [field, where, begun] = ['', 'start', false];
      } else if (where === 'closed') {
        if (char !== '\r') row.problem = `has ${JSON.stringify(char)} behind a closing quote`;
      } else {
        if (where === 'start' && char === '\r') continue; // an empty last field, or an empty line
        field += char;
        [where, begun] = ['plain', true];
      }
    }
  }
  if (where === 'quoted') row.unclosed = true;
  if (begun) {
    end();
    yield row;
  }
}
