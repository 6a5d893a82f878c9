/** What a model generates, told apart while it streams. */

export type OutputPiece =
  | {
      readonly kind: 'text' | 'thinking';
      /** Never empty. */
      readonly text: string;
    }
  | {
      readonly kind: 'tool-call';
      /** Which call of this answer, from 0. */
      readonly index: number;
      readonly name: string;
      /** The next characters of its arguments' JSON; those of the first piece may be none. */
      readonly text: string;
    };

/** Reads what a model generates. Malformed output becomes text, never an exception. */
export interface OutputParser {
  /** What comes next would be thinking. */
  readonly isThinking: boolean;
  push(id: number): OutputPiece[];
  end(): OutputPiece[];
}

/** One piece, or none of nothing. */
export function piece(kind: 'text' | 'thinking', text: string): OutputPiece[] {
  return text === '' ? [] : [{ kind, text }];
}
