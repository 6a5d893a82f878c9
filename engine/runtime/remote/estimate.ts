/** Tokens of text in a vocabulary that only the server knows. */

/**
 * Code has 3 to 4 bytes a token in current vocabularies, prose over 4; less text is then sent than would fit, never
 * more. What is dense beyond that (numbers, some scripts) has about 2.
 */
const usualBytes = 3;
const denseBytes = 2;

export type Density = 'usual' | 'dense';

const bytesOf = (density: Density): number => (density === 'usual' ? usualBytes : denseBytes);

export const estimatedTokens = (text: string, density: Density = 'usual'): number =>
  Math.ceil(Buffer.byteLength(text) / bytesOf(density));

/** Characters that surely fit into as many tokens, by the same estimate. */
export const estimatedChars = (tokens: number): number => Math.max(0, Math.floor(tokens * usualBytes));

/** What a template adds to a message, and to a conversation. */
const messageTokens = 8;
const promptTokens = 64;

interface Counted {
  readonly content: string;
  readonly thinking?: string | undefined;
  readonly toolCalls?: readonly { readonly name: string; readonly arguments: string }[] | undefined;
}

export function estimatedPrompt(messages: readonly Counted[], density: Density = 'usual'): number {
  const ofMessage = ({ content, toolCalls = [] }: Counted): number =>
    messageTokens +
    estimatedTokens(content, density) +
    toolCalls.reduce((sum, call) => sum + messageTokens + estimatedTokens(call.name + call.arguments, density), 0);
  return messages.reduce((sum, message) => sum + ofMessage(message), promptTokens);
}
