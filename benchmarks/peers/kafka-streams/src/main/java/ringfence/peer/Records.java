package ringfence.peer;

import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** What is read, kept and written: of the wire contract's records only the fields that the toy rule looks at. */
final class Records {
    private Records() {}

    record Request(String requestId, String number, String advertiserId) {}

    /** Given or withdrawn, by {@code kind}. */
    record Consent(String kind, List<String> partyIds) {}

    /** Names one advertiser, or several parties. */
    record Objection(String advertiserId, List<String> partyIds) {}

    record Decision(String requestId, String number, String decision, String advertiserId) {
        boolean approved() {
            return decision.equals("approved");
        }
    }

    /** What is known about one number: whose calls it agreed to and whose it objected to. */
    record Facts(Set<String> consented, Set<String> objected) {
        static final Facts NONE = new Facts(Set.of(), Set.of());

        /** The same after one more consent in the order of the log: a withdrawal ends those given before it. */
        Facts with(Consent consent) {
            Set<String> parties = new LinkedHashSet<>(consented);
            Collection<String> named = consent.partyIds() == null ? List.of() : consent.partyIds();
            if ("given".equals(consent.kind())) {
                parties.addAll(named);
            } else {
                parties.removeAll(named);
            }
            return new Facts(parties, objected);
        }

        /** The same after one more objection; objections are never taken back. */
        Facts with(Objection objection) {
            Set<String> parties = new LinkedHashSet<>(objected);
            if (objection.advertiserId() != null) {
                parties.add(objection.advertiserId());
            }
            parties.addAll(objection.partyIds() == null ? List.of() : objection.partyIds());
            return new Facts(consented, parties);
        }
    }
}
