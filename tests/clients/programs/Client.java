import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;

/**
 * Java's HttpClient. Usage: Client KIND URL PAUSE_MS WORKERS SECONDS, where KIND is http1 or http2.
 *
 * <p>Each worker sends GET and POST in turn, with pauses; this program never retries. At the end, one line of JSON has the
 * number of answered requests, the failures by text, and the first and last generation that answered. A wrong response is a
 * failure.
 */
class Client {
    private static final Pattern GENERATION = Pattern.compile("^generation=(\\d+) ");
    private static int answered;
    private static int first;
    private static int last;
    private static final TreeMap<String, Integer> FAILURES = new TreeMap<>();

    public static void main(String[] words) throws Exception {
        boolean http2 = words[0].equals("http2");
        String url = words[1];
        long pause = Long.parseLong(words[2]);
        int workers = Integer.parseInt(words[3]);
        long end = System.nanoTime() + (long) (Double.parseDouble(words[4]) * 1e9);
        HttpClient.Version version = http2 ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
        HttpClient client = HttpClient.newBuilder().version(version).sslContext(trusting()).build();

        var pool = Executors.newFixedThreadPool(workers);
        for (int i = 0; i < workers; i++) {
            int worker = i;
            pool.submit(() -> {
                Thread.sleep(pause * worker / workers);
                for (int n = 0; System.nanoTime() < end; n++) {
                    String sent = n % 2 == 0 ? null : (worker + "-" + n + " ").repeat(300);
                    try {
                        answered(ask(client, url, sent));
                    } catch (Exception error) {
                        failed(error);
                    }
                    Thread.sleep(pause);
                }
                return null;
            });
        }
        pool.shutdown();
        pool.awaitTermination(1, TimeUnit.HOURS);
        report();
    }

    private static int ask(HttpClient client, String url, String sent) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url + (sent == null ? "/" : "/echo"))).timeout(Duration.ofSeconds(15));
        if (sent != null) {
            request.POST(HttpRequest.BodyPublishers.ofString(sent));
        }
        var answer = client.send(request.build(), BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new Exception("status " + answer.statusCode());
        }
        if (sent != null) {
            if (!answer.body().equals(sent)) {
                throw new Exception("a wrong body of POST");
            }
            return 0;
        }
        var found = GENERATION.matcher(answer.body());
        if (!found.find()) {
            throw new Exception("a wrong body of GET");
        }
        return Integer.parseInt(found.group(1));
    }

    private static synchronized void answered(int generation) {
        answered++;
        if (generation > 0) {
            first = first == 0 ? generation : Math.min(first, generation);
            last = Math.max(last, generation);
        }
    }

    private static synchronized void failed(Exception error) {
        Throwable cause = error;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        String text = error.getClass().getSimpleName() + ": " + error.getMessage();
        if (cause != error) {
            text += " (" + cause.getClass().getSimpleName() + ": " + cause.getMessage() + ")";
        }
        // Addresses and stream numbers differ from one failure to the next.
        text = text.replaceAll("127\\.0\\.0\\.1:\\d+|@[0-9a-f]+|\\d{3,}", "N").replaceAll("[\"\\\\\\s]+", " ");
        FAILURES.merge(text.substring(0, Math.min(160, text.length())), 1, Integer::sum);
    }

    private static synchronized void report() {
        int failed = FAILURES.values().stream().mapToInt(Integer::intValue).sum();
        String map = FAILURES.entrySet().stream().map(entry -> "\"" + entry.getKey() + "\":" + entry.getValue())
                .collect(Collectors.joining(","));
        System.out.printf("{\"version\":\"Java %s\",\"answered\":%d,\"failed\":%d,\"failures\":{%s},\"first\":%d,\"last\":%d}%n",
                System.getProperty("java.version"), answered, failed, map, first, last);
    }

    /** Returns a TLS context that trusts every certificate: the server's is self-signed. */
    private static SSLContext trusting() throws Exception {
        var all = new X509TrustManager() {
            @Override
            public void checkClientTrusted(X509Certificate[] chain, String type) {}

            @Override
            public void checkServerTrusted(X509Certificate[] chain, String type) {}

            @Override
            public X509Certificate[] getAcceptedIssuers() {
                return new X509Certificate[0];
            }
        };
        var context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] {all}, new SecureRandom());
        return context;
    }
}
