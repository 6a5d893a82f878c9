import type { OutputPiece } from '../../../engine/prompt/conversation.ts';

/** The pieces of an answer, joined by kind. */
export function summary(pieces: readonly OutputPiece[]) {
  const calls: { name: string; arguments: string }[] = [];
  let [said, thought] = ['', ''];
  for (const piece of pieces) {
    if (piece.kind === 'tool-call') {
      calls[piece.index] ??= { name: piece.name, arguments: '' };
      const call = calls[piece.index];
      if (call) call.arguments += piece.text;
    } else if (piece.kind === 'text') said += piece.text;
    else thought += piece.text;
  }
  return { text: said, thinking: thought, calls };
}
