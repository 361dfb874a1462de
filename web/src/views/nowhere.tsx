import { Mark } from '../parts/icon';
import { followLink } from '../route';

export function Nowhere() {
  return (
    <main class="centred">
      <div class="message">
        <Mark size={44} />
        <h1>There is nothing here</h1>
        <p>The address leads to no page of this workspace.</p>
        <a class="button primary" href="/" onClick={followLink}>
          To the documents
        </a>
      </div>
    </main>
  );
}
